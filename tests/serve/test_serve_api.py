"""The API as the `openai` client reads it, on a real server; hostile requests; receipts that can be checked."""

import base64
import io
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest

from fabrica.chat import Scripted, TemplateGrammar
from fabrica.corpus import Corpus
from fabrica.encode.hashed import HashedText
from fabrica.errors import Refused, UsageError
from fabrica.serve import wire
from fabrica.serve.app import Desk, create_app
from fabrica.serve.evidence import Evidence, Receipt, best_sentence, verify
from fabrica.types import Absent, Item, Origin, Record, Reply, Rights

TOKEN = "a-secret-of-enough-letters"
TEXTS = {
    "r1": "Heart size is normal. There is a small left pleural effusion. No pneumothorax.",
    "r2": "Comminuted fracture of the distal radius. Alignment is satisfactory.",
    "r3": "Large right pneumothorax with mediastinal shift. Chest tube was placed.",
}


def record(name: str, text: str | Absent, **changes) -> Record:
    item = Item("text", text, Origin("clinic", f"{name}.txt", "", "CC-BY-4.0"))
    return Record(name, f"p-{name}", items={"report": (item,)}, **changes)


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    made = Corpus.create(tmp_path / "corpus")
    made.append([record(n, t) for n, t in TEXTS.items()])
    made.append([record("secret", "A pleural effusion nobody may see.", rights=Rights(share="ids_only"))])
    made.append([record("none", Absent.NOT_DONE)])
    return made


def seen(messages) -> Reply:
    """Says what it was shown, so that a test sees that pictures arrive."""
    items = [p for m in messages for p in m.parts if isinstance(p, Item)]
    return Reply(f"{len(items)} pictures {[p.array().shape for p in items]}", "eyes", 3, 4, (("yes", -0.25),))


class Eyes:
    name = "eyes"

    def __call__(self, messages, /, *, schema=None, max_tokens=256, temperature=0.0, seed=0) -> Reply:
        return seen(messages)


@pytest.fixture
def served(corpus):
    import uvicorn

    bounds = replace(wire.BOUNDS, body=200_000, images=2, pixels=10_000)
    desk = Desk(
        {"grammar": TemplateGrammar(), "eyes": Eyes(), "broken": Scripted([])}, {"hashed": HashedText()},
        Evidence(corpus), TOKEN, bounds,
    )  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(create_app(desk), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def client(served):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=served, api_key=TOKEN, max_retries=0)


def data_url(size: tuple[int, int] = (8, 6)) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.zeros(size[::-1], np.uint8)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def post(base: str, path: str, body: bytes, token: str = TOKEN) -> tuple[int, dict]:
    request = urllib.request.Request(base + path, body, {"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_openai_client_chats_lists_and_embeds(client):
    facts = '{"modality": "xray", "findings": [{"name": "pleural effusion", "side": "left"}]}'
    made = client.chat.completions.create(model="grammar", messages=[{"role": "user", "content": facts}])
    assert made.choices[0].message.content == TemplateGrammar()(wire.chat_request(
        {"messages": [{"role": "user", "content": facts}]}).messages).text  # fmt: skip
    assert made.choices[0].finish_reason == "stop"
    assert {m.id for m in client.models.list()} == {"grammar", "eyes", "broken", "hashed"}
    rows = client.embeddings.create(model="hashed", input=["effusion", "effusion", "fracture"]).data
    plain = client.embeddings.create(model="hashed", input="effusion", encoding_format="float").data[0].embedding
    np.testing.assert_allclose(rows[0].embedding, plain, atol=1e-7)
    assert rows[0].embedding == rows[1].embedding != rows[2].embedding


def test_a_reply_comes_in_pieces_that_make_the_whole(client):
    facts = '{"modality": "ct", "findings": ["nodule"], "absent": ["effusion"]}'
    ask = {"model": "grammar", "messages": [{"role": "user", "content": facts}]}
    whole = client.chat.completions.create(**ask).choices[0].message.content
    parts = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**ask, stream=True)]
    assert len(parts) > 3
    assert "".join(parts) == whole


def test_a_schema_is_held_and_log_probabilities_travel(client):
    schema = {"type": "object", "properties": {"modality": {"type": "string"}}, "required": ["modality"]}
    made = client.chat.completions.create(
        model="grammar", messages=[{"role": "user", "content": '{"modality": "mr", "findings": []}'}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )  # fmt: skip
    assert json.loads(made.choices[0].message.content)["modality"] == "mr"
    made = client.chat.completions.create(model="eyes", messages=[{"role": "user", "content": "hello"}])
    assert made.choices[0].logprobs.content[0].logprob == -0.25


def test_pictures_come_as_data_urls_and_nothing_is_fetched(client):
    openai = pytest.importorskip("openai")

    def ask(*urls):
        parts = [{"type": "text", "text": "what?"}, *({"type": "image_url", "image_url": {"url": u}} for u in urls)]
        return client.chat.completions.create(model="eyes", messages=[{"role": "user", "content": parts}])

    assert ask(data_url(), data_url((20, 10))).choices[0].message.content == "2 pictures [(6, 8), (10, 20)]"
    for url in ("http://127.0.0.1:1/a.png", "file:///etc/passwd", "data:text/html;base64,AAAA", "data:image/png,AAAA",
                "data:image/png;base64,@@@", "data:image/png;base64,AAAA"):  # fmt: skip
        with pytest.raises(openai.BadRequestError):
            ask(url)
    with pytest.raises(openai.APIStatusError) as info:
        ask(*[data_url()] * 3)
    assert info.value.status_code == 413
    with pytest.raises(openai.APIStatusError) as info:
        ask(data_url((200, 200)))
    assert info.value.code == "too_many_pixels"


def test_errors_are_those_that_clients_know(client, served):
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.NotFoundError, match=r"grammer.*did you mean 'grammar'"):
        client.chat.completions.create(model="grammer", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=served, api_key="wrong", max_retries=0).models.list()
    for body in (b"{", b"[]", b"[" * 50_000, b'{"model": "grammar"}',
                 b'{"model": "grammar", "messages": [{"role": "x"}]}',
                 b'{"model": "grammar", "messages": [{"role": "user", "content": "x"}], "n": 2}',
                 b'{"model": "grammar", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
                 b'{"model": "grammar", "messages": [{"role": "user", "content": "x"}], "max_tokens": true}',
                 b'{"model": "grammar", "messages": [{"role": "user", "content": [7]}]}'):  # fmt: skip
        status, said = post(served, "/chat/completions", body)
        assert status == 400, (body[:40], said)
        assert said["error"]["message"]
    assert post(served, "/embeddings", b'{"model": "hashed", "input": [1, 2]}')[0] == 400
    assert post(served, "/chat/completions", b" " * 300_000)[0] == 413
    status, said = post(served, "/chat/completions", b'{"model":"broken","messages":[{"role":"user","content":"x"}]}')
    assert status == 400
    assert "Traceback" not in said["error"]["message"]


def test_search_gives_receipts_that_verify_and_withholds_what_may_not_be_shown(served, corpus):
    status, said = post(served, "/search", b'{"query": "left pleural effusion", "k": 5}')
    assert status == 200
    best = Receipt(**said["data"][0])
    assert (best.record, best.text) == ("r1", "There is a small left pleural effusion.")
    assert TEXTS["r1"][best.start : best.end] == best.text
    assert best.licence == "CC-BY-4.0"
    assert all(verify(corpus, Receipt(**hit)) for hit in said["data"])
    assert "nobody may see" not in json.dumps(said)
    assert not verify(corpus, replace(best, text="There is a large left pleural effusion."))
    assert not verify(corpus, replace(best, sha256="0" * 64))
    with pytest.raises(UsageError, match="not in this corpus"):
        verify(corpus, replace(best, record="r9"))
    filtered = post(served, "/search", json.dumps({"query": "effusion pneumothorax", "where": "id = 'r3'"}).encode())[1]
    assert [hit["record"] for hit in filtered["data"]] == ["r3"]
    assert post(served, "/search", b'{"query": "x", "where": "drop table"}')[0] == 400


def test_what_is_added_is_found_and_what_is_erased_is_not(corpus):
    evidence = Evidence(corpus, HashedText())
    assert evidence.withheld == 1
    corpus.append([record("r4", "Tension pneumothorax on the left.")])
    assert evidence.search("tension")[0].record == "r4"
    corpus.erase("p-r4")
    assert all(hit.record != "r4" for hit in evidence.search("tension"))


def test_an_index_has_a_bound_and_an_empty_corpus_no_hits(corpus, tmp_path):
    with pytest.raises(Refused, match="more than 2 texts"):
        Evidence(corpus, most=2)
    assert Evidence(Corpus.create(tmp_path / "empty")).search("x") == []


def test_the_best_sentence_is_inside_the_text():
    for text in (*TEXTS.values(), "no end", "a.b.c", "  spaced  out . ", "one\ntwo"):
        start, end = best_sentence(text, "two pneumothorax")
        assert 0 <= start < end <= len(text)


def test_outside_addresses_want_a_token(tmp_path):
    from fabrica.cli.serve import _token

    with pytest.raises(UsageError, match="--token-file"):
        _token("0.0.0.0", None)
    (tmp_path / "short").write_text("abc")
    with pytest.raises(UsageError, match="at least 16"):
        _token("0.0.0.0", tmp_path / "short")
    assert _token("127.0.0.1", None) == ""
