"""The template grammar says every fact and nothing else; with a schema its object obeys it."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.chat import TemplateGrammar, prompt, user
from fabrica.chat.fill import fill
from fabrica.chat.grammar import last_facts
from fabrica.curate.language.grammar import IMAGE_NAMES, LabelSchema, read_back
from fabrica.errors import UsageError

NAMES = ("pleural effusion", "pneumothorax", "mass", "consolidation")
READ = LabelSchema(modality="xray", labels={n: (n,) for n in NAMES}, normal="normal")
MODEL = TemplateGrammar()


def said(facts: dict[str, Any], seed: int = 0) -> str:
    return MODEL(prompt("caption").messages(facts=json.dumps(facts)), seed=seed).text


@given(
    st.lists(st.sampled_from(NAMES), unique=True), st.sampled_from(("left", "right", "")),
    st.sampled_from(sorted(IMAGE_NAMES)), st.booleans(), st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_text_reads_back_as_its_facts(present: list[str], side: str, modality: str, deny: bool, seed: int) -> None:
    findings = [{"name": n, "side": side} if side else n for n in present]
    absent = [n for n in NAMES if n not in present] if deny else []
    facts = {"modality": modality, "findings": findings, "absent": absent, "normal": not present and not absent}
    text = said(facts, seed)
    expected = dict.fromkeys(present, True) | dict.fromkeys(absent, False)
    assert read_back(text, READ) == (expected or {"normal": True})
    assert text.lower().count(side or "\0") == (len(present) if side else 0)
    assert text == said(facts, seed)


def test_seeds_vary_the_words_and_details_are_said() -> None:
    facts = {
        "modality": "ct", "organ": "chest", "age": 61, "report_type": "follow-up",
        "findings": [{"name": "mass", "side": "left", "size": "small", "place": "lower lobe", "diameter_mm": 12}],
    }  # fmt: skip
    texts = {said(facts, seed) for seed in range(40)}
    assert len(texts) > 10
    for text in texts:
        assert "small left mass in the lower lobe (diameter mm 12)" in text.lower()
        assert "Age: 61." in text
        assert "Report type: follow-up." in text
        assert "chest" in text.lower()


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", {}), ("no facts {here}", {}), ('{"a": 1} and then {"b": 2}', {"b": 2}),
        ('x {"facts": {"c": 3}}', {"c": 3}),
        ("{" * 10_000, {}), ('{"a":' * 5000, {}),
    ],
    ids=lambda v: str(v)[:20],
)  # fmt: skip
def test_facts_are_the_last_object(text: str, facts: dict[str, Any]) -> None:
    assert last_facts(text) == facts
    assert MODEL(user(text)).text


def schemas(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    numbers = st.tuples(st.integers(-9, 9), st.integers(0, 9), st.sampled_from(("integer", "number"))).map(
        lambda v: {"type": v[2], "minimum": v[0], "maximum": v[0] + v[1]}
    )
    exclusive = st.tuples(st.integers(-9, 9), st.integers(2, 9), st.sampled_from(("integer", "number"))).map(
        lambda v: {"type": v[2], "exclusiveMinimum": v[0], "exclusiveMaximum": v[0] + v[1]}
    )
    half_open = st.sampled_from(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")).flatmap(
        lambda k: st.integers(-9, 9).map(lambda v: {"type": "number", k: v})
    )
    multiple = st.tuples(st.integers(1, 5), st.integers(-20, 20)).map(
        lambda v: {"type": "integer", "multipleOf": v[0], "minimum": v[1], "maximum": v[1] + 10}
    )
    texts = st.tuples(st.integers(0, 80), st.integers(0, 80)).map(
        lambda v: {"type": "string", "minLength": v[0], "maxLength": v[0] + v[1]}
    )
    plain = st.sampled_from(
        [{}, {"type": "boolean"}, {"type": "null"}, {"type": ["null", "string"]}, {"const": {"a": [1]}},
         {"enum": ["left", "right"]}, {"enum": [3, None]}, {"title": "t", "description": "d"}]
    )  # fmt: skip
    leaf = st.one_of(numbers, exclusive, half_open, multiple, texts, plain)
    if depth == 0:
        return leaf
    inner = schemas(depth - 1)
    members = st.dictionaries(st.sampled_from(("side", "age", "text", "findings", "x")), inner, max_size=4)
    objects = st.tuples(members, st.booleans()).map(
        lambda v: {"type": "object", "properties": v[0], "required": sorted(v[0])[::2], "additionalProperties": v[1]}
    )
    arrays = st.tuples(inner, st.integers(0, 3), st.integers(0, 3)).map(
        lambda v: {"type": "array", "items": v[0], "minItems": v[1], "maxItems": v[1] + v[2]}
    )
    tuples = st.lists(inner, min_size=1, max_size=3).map(lambda v: {"prefixItems": v, "items": False, "type": "array"})
    either = st.tuples(inner, inner, st.sampled_from(("anyOf", "allOf"))).map(
        lambda v: {"anyOf": [v[0], v[1]]} if v[2] == "anyOf" else {"allOf": [v[0]]}
    )
    return st.one_of(leaf, objects, arrays, tuples, either)


@given(schemas(), st.integers(0, 9))
@settings(max_examples=500, deadline=None)
def test_objects_obey_their_schema(schema: dict[str, Any], seed: int) -> None:
    facts = {"modality": "xray", "findings": ["mass"], "side": "right", "age": 50}
    reply = MODEL(user(json.dumps(facts)), schema=schema, seed=seed)
    jsonschema.Draft202012Validator(schema).validate(json.loads(reply.text))


def test_facts_go_where_they_fit() -> None:
    schema = {
        "type": "object", "required": ["text", "side", "certainty"],
        "properties": {
            "text": {"type": "string"}, "side": {"enum": ["left", "right"]}, "age": {"type": "integer"},
            "findings": {"type": "array", "items": {"$ref": "#/$defs/finding"}}, "certainty": {"minimum": 0.5},
        },
        "$defs": {"finding": {"type": "string", "minLength": 2}},
    }  # fmt: skip
    facts = {"modality": "xray", "findings": ["mass"], "side": "right", "age": "fifty"}
    out = json.loads(MODEL(user(json.dumps(facts)), schema=schema).text)
    assert (out["side"], out["findings"], out["certainty"]) == ("right", ["mass"], 0.5)
    assert "mass" in out["text"].lower()
    assert "age" not in out  # a word is no integer, and it is not required


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^a$"}, {"not": {"type": "string"}}, {"$ref": "#"}, {"$ref": "https://a/b"},
        {"$ref": "#/$defs/none"}, {"type": "integer", "minimum": 2, "maximum": 1}, {"type": "string", "minLength": 2,
        "maxLength": 1}, {"type": "array", "minItems": 2, "uniqueItems": True}, {"type": "object", "required": ["a"],
        "properties": {"a": {"$ref": "#"}}},
    ],
    ids=str,
)  # fmt: skip
def test_what_it_cannot_meet_it_says(schema: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        fill(schema, {}, "text")
