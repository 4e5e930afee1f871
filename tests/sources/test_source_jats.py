"""JATS articles: every trap of real files, hostile bytes, packages, and the eight real articles."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fabrica.errors import Refused
from fabrica.sources import Quarantined, Ref, read, sniff, walk
from fabrica.sources.jats import Article, Figure, parse
from fabrica.sources.jats_licence import licence_group, spdx
from fabrica.types import Absent, Record

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def article(body: str = "<p>Text.</p>", meta: str = "", rest: str = "", head: str = "") -> bytes:
    meta = meta or '<article-id pub-id-type="pmc">1</article-id>'
    return (
        f"{head}<article {XLINK}><front><article-meta>{meta}</article-meta></front><body>{body}</body>{rest}</article>"
    ).encode()


def figure(body: str) -> Figure:
    (found,) = (f for f in parse(article(body)).figures if f.kind == "figure")
    return found


def test_a_figure_has_title_paragraphs_and_no_text_of_its_formula() -> None:
    found = figure(
        '<fig id="f"><label>Figure 1</label><caption><title>Two <italic>cells</italic>.</title><p>One.</p><p>Rate '
        '<inline-formula><inline-graphic xlink:href="eq1"/></inline-formula>is high.</p></caption>'
        '<graphic xlink:href="a.b.g001"/></fig>'
    )
    assert (found.id, found.label, found.title) == ("f", "Figure 1", "Two cells.")
    assert found.text == "Two cells.\nOne.\nRate is high."
    assert found.graphics == ("a.b.g001",)  # the formula in the caption is not its picture


def test_two_graphics_alternatives_and_older_tagging() -> None:
    two = figure('<fig id="f"><graphic xlink:href="a"/><graphic xlink:href="b"/></fig>')
    assert two.graphics == ("a", "b")
    one = figure(
        '<fig id="f"><alternatives><graphic xlink:href="a.gif"/><graphic xlink:href="a.jpg"/></alternatives></fig>'
    )
    assert one.graphics == ("a.jpg",)
    old = figure('<fig id="f"><p><graphic xlink:href="old"/></p></fig>')
    assert old.graphics == ("old",)
    film = figure('<fig id="f"><media mimetype="video" xlink:href="v.mp4"/></fig>')
    assert film.graphics == ()


def test_a_group_gives_what_its_figures_lack() -> None:
    found = parse(
        article(
            '<fig-group id="g"><label>Figure 3</label><caption><p>Both.</p></caption>'
            '<fig id="a"><graphic xlink:href="1"/></fig>'
            '<fig id="b"><label>Figure 3b</label><caption><p>Own.</p></caption><graphic xlink:href="2"/></fig>'
            '</fig-group><p><xref ref-type="fig" rid="g">Fig. 3</xref> shows both.</p>'
        )
    )
    assert [(f.id, f.label, f.text, f.group) for f in found.figures] == [
        ("a", "Figure 3", "Both.", "g"), ("b", "Figure 3b", "Own.", "g"),
    ]  # fmt: skip
    assert all([p.text for p in found.context(f)] == ["Fig. 3 shows both."] for f in found.figures)


def test_formulas_and_tables_that_are_pictures_are_named_apart() -> None:
    found = parse(
        article(
            '<disp-formula id="e"><graphic xlink:href="e1"/></disp-formula><disp-formula><graphic xlink:href="e2"/>'
            "<math><mi>x</mi></math></disp-formula>"
            '<table-wrap id="t"><graphic xlink:href="t1"/></table-wrap>'
            '<supplementary-material id="s" xlink:href="s.tif"/>'
            '<supplementary-material id="z"><media xlink:href="z.pdf"/></supplementary-material>'
        )
    )
    assert [(f.id, f.kind, f.graphics) for f in found.figures] == [
        ("e", "formula", ("e1",)), ("t", "table", ("t1",)), ("s", "supplement", ("s.tif",)), ("z", "supplement", ()),
    ]  # fmt: skip


def test_paragraphs_keep_order_and_leave_floats_out() -> None:
    found = parse(
        article(
            "<sec><title>A</title><p>One <fig id='f'><caption><p>no</p></caption></fig>two:<list><list-item><p>three"
            "</p></list-item></list>four</p><sec><title>B</title><p>five<!-- no --> six<break/>seven</p></sec></sec>"
        )
    )
    assert [(p.text, p.path) for p in found.paragraphs] == [
        ("One two:", ("A",)), ("three", ("A",)), ("four", ("A",)), ("five six seven", ("A", "B")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("marked", "wanted"),
    [
        ("10<sup>-6</sup> M", "10^-6 M"),
        ("Ca<sup>2+</sup>, T<sub>4</sub>", "Ca2+, T4"),
        ("in 2010<sup><xref ref-type='bibr' rid='r'>3</xref></sup>", "in 2010 3"),
        ("in it<sup><xref ref-type='bibr' rid='r'>3</xref></sup>", "in it3"),
        ("a<![CDATA[ < b & c]]>", "a < b & c"),
        ("&#945;&#x2013;&lt;", "α–<"),
        ("<inline-formula><tex-math>$\\alpha_{1} \\times \\frac{a}{b}$</tex-math></inline-formula>", "α_1 × a/b"),
        ("<m:math xmlns:m='urn:m'><m:msqrt><m:mi>x</m:mi></m:msqrt></m:math>", "sqrt(x)"),
        ("<alternatives><graphic/><tex-math>x</tex-math></alternatives>", "x"),
        ("\n  two\t lines\n ", "two lines"),
    ],
)
def test_text_of_mixed_content(marked: str, wanted: str) -> None:
    assert [p.text for p in parse(article(f"<p>{marked}</p>")).paragraphs] == [wanted]


def test_named_entities_of_a_dtd_that_is_never_read() -> None:
    head = '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS" "nowhere.dtd">'
    assert parse(article("<p>&alpha;&ndash;&notathing;</p>", head=head)).paragraphs[0].text == "α–&notathing;"


FIGS = "".join(f'<fig id="F{n}"><label>Figure {n}</label></fig>' for n in range(1, 6))


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ('<xref ref-type="fig" rid="F2">Figs 2-4</xref>', {"F2", "F3", "F4"}),
        ('<xref ref-type="fig" rid="F2">Fig 2</xref>&#8211;<xref ref-type="fig" rid="F4">4</xref>', {"F2", "F3", "F4"}),
        ('<xref ref-type="fig" rid="F2">2</xref> to <xref ref-type="fig" rid="F4">4</xref>', {"F2", "F3", "F4"}),
        ('<xref ref-type="fig" rid="F2 F4">2, 4</xref>', {"F2", "F4"}),
        ('<xref ref-type="fig" rid="F2">2</xref> and <xref ref-type="fig" rid="F4">4</xref>', {"F2", "F4"}),
        ('<xref ref-type="fig" rid="F3"><bold>3A-C</bold></xref>', {"F3"}),
        ('<bold><xref ref-type="fig" rid="F5">5</xref></bold>', {"F5"}),
        ('<xref ref-type="fig" rid="F1">1-99999999</xref>', {"F1"}),
    ],
)  # fmt: skip
def test_ranges_and_nested_cross_references(said: str, ids: set[str]) -> None:
    found = parse(article(f"<p>See {said}.</p>{FIGS}"))
    assert {f.id for f in found.figures if found.context(f)} == ids
    for x in found.paragraphs[0].xrefs:
        assert found.paragraphs[0].text[x.start : x.end].strip("Figs ")[0].isdigit()


def test_namespaces_and_sub_articles() -> None:
    data = (
        '<j:article xmlns:j="urn:jats" xmlns:xlink="http://www.w3.org/1999/xlink"><j:front><j:article-meta>'
        '<j:article-id pub-id-type="pmcid">PMC9</j:article-id></j:article-meta></j:front><j:body><j:p>One.</j:p>'
        '<j:fig id="f"><j:graphic xlink:href="g"/></j:fig></j:body><j:sub-article id="x"><j:body><j:fig id="no"/>'
        "</j:body></j:sub-article></j:article>"
    )
    found = parse(data.encode())
    assert (found.id, [f.id for f in found.figures]) == ("PMC9", ["f"])
    assert ("sub_article", "x") in [(n.code, n.detail) for n in found.notes]


def test_references_with_several_citations_and_ids() -> None:
    found = parse(
        article(
            rest='<back><ref-list><ref id="R1"><label>1</label><element-citation><name><surname>Rich</surname>'
            "<given-names>KM</given-names></name><article-title>Fever.</article-title><year>2010</year>"
            '<pub-id pub-id-type="pmid">0020682906</pub-id><pub-id pub-id-type="doi">10.1/X</pub-id></element-citation>'
            '</ref><ref id="R2"><mixed-citation>A. <ext-link xlink:href="https://doi.org/10.1038/Nrm1">link</ext-link>'
            "</mixed-citation><mixed-citation>B.</mixed-citation></ref><ref/></ref-list></back>"
        )
    )
    assert [(r.id, r.label, r.pmid, r.doi) for r in found.references] == [
        ("R1", "1", "20682906", ""), ("R2", "", "", "10.1038/nrm1"), ("R2.2", "", "", ""), ("ref-3", "", "", ""),
    ]  # fmt: skip
    assert found.references[0].text.startswith("Rich KM Fever. 2010")
    assert found.references[0].title == "Fever."


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("http://creativecommons.org/licenses/by/2.0", "CC-BY-2.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "CC-BY-NC-SA-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("terms of the Creative Commons Attribution License, which permits unrestricted use", "CC-BY"),
        ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International", "CC-BY-NC-ND-4.0"),
        ("Creative Commons Attribution Non-Commercial License", "CC-BY-NC"),
        ("This is a CC BY-NC-ND 4.0 article", "CC-BY-NC-ND-4.0"),
        ("CC BY license", "CC-BY"),
        ("All rights reserved.", ""),
        ("Elsevier user licence", ""),
    ],
)
def test_licences(said: str, wanted: str) -> None:
    assert spdx(said) == wanted


def test_a_licence_that_is_not_known_is_other_and_counted() -> None:
    meta = "<permissions><license><license-p>Publisher's own terms.</license-p></license></permissions>"
    found = parse(article(meta=meta))
    assert found.licence == "other"
    assert [(n.code, n.detail) for n in found.notes] == [("licence_other", "Publisher's own terms.")]
    assert [n.code for n in parse(article()).notes] == ["licence_none"]
    assert licence_group("CC-BY-SA-3.0") == "commercial"
    assert licence_group("CC-BY-NC") == "noncommercial"
    assert licence_group("other") == licence_group("") == "other"


# ---------------------------------------------------------------- hostile

BILLION = '<!DOCTYPE article [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (article("<p>&b;</p>", head=BILLION), "xml_entity"),
        (article(head='<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "xml_entity"),
        (article()[:-20], "xml_bad"),
        (b"", "xml_bad"),
        (b"\x00\x01\x02", "xml_bad"),
        (b"<PubmedArticleSet/>", "not_an_article"),
        (article("<p>" * 300 + "</p>" * 300), "xml_bad"),
        (article("<fig id='a'/>" * 20_001), "jats_too_many"),
        (b"<article>" + b" " * (33 << 20) + b"</article>", "file_too_large"),
    ],
)
def test_hostile_bytes_are_refused_by_name(data: bytes, code: str) -> None:
    with pytest.raises(Refused) as error:
        parse(data)
    assert error.value.code == code


SEED_XML = article(
    '<sec><title>R</title><p>See <xref ref-type="fig" rid="f1">Figs 1-2</xref><sup>2</sup>.</p>'
    '<fig-group id="g"><fig id="f1"><label>1</label><caption><title>T</title><p>(A) x</p></caption>'
    '<alternatives><graphic xlink:href="a.tif"/></alternatives></fig></fig-group>'
    "<inline-formula><tex-math>\\frac{a}{b}^{2}</tex-math></inline-formula>"
    "<table-wrap><table><tr><td>1</td></tr></table></table-wrap></sec>",
    "<permissions><license><license-p>CC BY 4.0</license-p></license></permissions>",
    '<back><ref-list><ref id="r"><mixed-citation>A<pub-id pub-id-type="pmid">1</pub-id></mixed-citation></ref>'
    "</ref-list></back>",
)
PIECES = (
    b"<", b">", b"/", b'"', b"&alpha;", b"<!--", b"<fig>", b"<xref rid='f1'>", b"<alternatives/>", b"\xff", b"<sup/>",
    b"<mfrac/>", b"<math><msup/></math>", b"<caption/>", b"<![CDATA[", b"<?x?>", b"<article>",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SEED_XML)), st.integers(0, 40), st.sampled_from(PIECES)), max_size=4))
def test_mutated_articles_are_read_or_refused_by_name(edits: list[tuple[int, int, bytes]]) -> None:
    data, found = SEED_XML, None
    for at, cut, piece in edits:
        data = data[:at] + piece + data[at + cut :]
    try:
        found = parse(data)
    except Refused as error:
        code = error.code
    else:
        code = "read"
    assert code in ("read", "xml_bad", "xml_entity", "not_an_article")
    for p in found.paragraphs if found else ():
        assert p.text == " ".join(p.text.split()) != ""
        assert all(0 <= x.start <= x.end <= len(p.text) for x in p.xrefs)


def test_deep_and_wide_formulas_end(tmp_path: Path) -> None:
    deep = "{" * 5000 + "\\frac" * 2000 + "}" * 5000
    found = parse(article(f"<p><inline-formula><tex-math>{deep}</tex-math></inline-formula>x</p>"))
    assert found.paragraphs[0].text.endswith("x")


def test_context_that_repeats_too_much_is_refused(tmp_path: Path) -> None:
    figs = "".join(f"<fig id='f{n}'/>" for n in range(500))
    long = "word " * 40_000
    refs = " ".join(f"f{n}" for n in range(500))
    path = tmp_path / "a.nxml"
    path.write_bytes(article(f"<p>{long}<xref ref-type='fig' rid='{refs}'>all</xref></p>{figs}"))
    (found,) = read(Ref(path, path.name, "demo"))
    assert isinstance(found, Quarantined)
    assert found.code == "context_too_large"


# ---------------------------------------------------------------- records

BODY = (
    '<sec><title>Results</title><p>See <xref ref-type="fig" rid="f1">Figure 1A</xref>.</p><p>Other.</p>'
    '<fig id="f1"><label>Figure 1</label><caption><p>(A) One.</p></caption><graphic xlink:href="g1"/></fig>'
    '<fig id="f2"><label>Figure 2</label><caption><p>Gone.</p></caption><graphic xlink:href="g2"/></fig>'
    '<fig id="f3"><caption><p>None.</p></caption></fig>'
    '<fig id="f4"><caption><p>Broken.</p></caption><graphic xlink:href="g4.tif"/></fig>'
    '<fig id="f5"><caption><p>Away.</p></caption><graphic xlink:href="../../etc/passwd"/></fig></sec>'
)
META = (
    '<article-id pub-id-type="pmc">12</article-id><article-id pub-id-type="pmid">34</article-id><permissions><license '
    'xlink:href="https://creativecommons.org/licenses/by/4.0/"/></permissions>'
)


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(out, "PNG")
    return out.getvalue()


def check(found: list[Record | Quarantined]) -> None:
    bad = [q for q in found if isinstance(q, Quarantined)]
    whole, *figures = [r for r in found if isinstance(r, Record)]
    assert whole.subject == whole.groups["article"] == "PMC12"
    assert [i.text() for i in whole.items["paragraph"]] == ["See Figure 1A.", "Other."]
    assert whole.items["paragraph"][0].names == ("Results",)
    assert [f.groups["figure"] for f in figures] == ["Figure 1", "Figure 2", "f3", "f4", "f5"]
    assert [f.items["image"][0].value if not f.items["image"][0].present else "" for f in figures] == [
        "", Absent.NOT_LINKED, Absent.NOT_LINKED, Absent.UNREADABLE, Absent.NOT_LINKED,
    ]  # fmt: skip
    assert [f.groups.get("problem", "") for f in figures][:4] == [
        "",
        "image_missing",
        "no_figure_graphic",
        "image_broken",
    ]
    assert figures[4].groups["problem"] in ("path_outside", "image_missing")
    assert figures[0].items["image"][0].array().shape == (6, 8)
    assert [i.text() for i in figures[0].items["context"]] == ["See Figure 1A."]
    (mention,) = figures[0].regions
    assert figures[0].items["context"][0].text()[slice(*mention.data)] == "Figure 1A"
    assert {f.rights.licence for f in figures} == {"CC-BY-4.0"}
    assert all(f.links[0].to == whole.id and f.subject == "PMC12" for f in figures)
    assert len({r.id for r in (whole, *figures)}) == 6
    assert [q.code for q in bad] == ["image_broken"]


def test_records_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "12.nxml"
    path.write_bytes(article(BODY, META))
    (tmp_path / "g1.png").write_bytes(png())
    (tmp_path / "g4.jpg").write_bytes(b"\xff\xd8\xff broken")
    (ref,) = walk(tmp_path, source="pmc")  # the pictures are part of the article
    assert sniff(path) == "jats"
    check(list(read(ref)))


def test_pictures_of_an_article_are_no_files_of_their_own_and_others_are(tmp_path: Path) -> None:
    """Named without extension, in a folder below, twice at two sizes, of a formula; and one that nobody names."""
    body = (
        '<fig id="a"><graphic xlink:href="g1"/></fig><fig id="b"><graphic xlink:href="img/./g2.tif"/></fig>'
        '<fig id="c"><graphic xlink:href="../away"/></fig><p><inline-graphic xlink:href="eq1.gif"/></p>'
    )
    (tmp_path / "p" / "img").mkdir(parents=True)
    (tmp_path / "p" / "1.nxml").write_bytes(article(body, META))
    (tmp_path / "2.xml").write_bytes(article('<fig id="a"><graphic xlink:href="h1.jpg"/></fig>', META))
    for name in ("p/g1.png", "p/g1.gif", "p/img/g2.png", "p/eq1.gif", "p/other.png", "p/paper.pdf", "h1.png",
                 "away.png"):  # fmt: skip
        (tmp_path / name).write_bytes(png())
    columns = [{}, {"kinds": "figure,formula"}]
    for said in columns:
        keys = [ref.key for ref in walk(tmp_path, source="pmc", columns=said)]
        assert keys == ["2.xml", "away.png", "p/1.nxml", "p/other.png"]
    (one,) = [r for r in walk(tmp_path, source="pmc") if r.key == "p/1.nxml"]
    figures = [r for r in read(one) if isinstance(r, Record) and r.groups["modality"] == "figure"]
    assert [f.items["image"][0].present for f in figures] == [True, True, False]
    assert figures[1].items["image"][0].origin.key == "p/img/./g2.png"


def test_pictures_beside_a_broken_article_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "1.nxml").write_bytes(article(BODY, META)[:400])
    (tmp_path / "g1.png").write_bytes(png())
    assert [ref.key for ref in walk(tmp_path, source="pmc")] == ["1.nxml"]


def test_records_of_a_package_with_a_broken_article_in_it(tmp_path: Path) -> None:
    path = tmp_path / "PMC12.tar.gz"
    parts = {
        "PMC12/g1.png": png(),
        "PMC12/12.nxml": article(BODY, META),
        "PMC12/g4.jpg": b"\xff\xd8\xff",
        "x.nxml": b"<a",
    }
    with tarfile.open(path, "w:gz") as out:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    assert sniff(path) == "jats"
    found = list(read(Ref(path, path.name, "pmc")))
    assert isinstance(found[-1], Quarantined)
    assert (found[-1].code, found[-1].key) == ("xml_bad", "PMC12.tar.gz/x.nxml")
    check(found[:-1])


def test_no_body_is_named_and_still_a_record(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(article("", META))
    (found,) = read(Ref(path, path.name, "pmc"))
    assert isinstance(found, Record)
    assert found.groups["problem"] == "no_body"


def test_pictures_of_formulas_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.nxml"
    path.write_bytes(article('<p>x</p><disp-formula id="e"><graphic xlink:href="g1"/></disp-formula>', META))
    (tmp_path / "g1.png").write_bytes(png())
    assert len(list(read(Ref(path, "a", "pmc")))) == 1
    _, formula = read(Ref(path, "a", "pmc", columns={"kinds": "figure,formula"}))
    assert isinstance(formula, Record)
    assert "caption" not in formula.items
    assert formula.groups["figure_kind"] == "formula"


# ---------------------------------------------------------------- real

COUNTS = {  # id: figures, references (`<fig` and `<ref ` counted in the files), licence, ids of cited works in PubMed
    "PMC3166277": (4, 64, "CC-BY-2.0", 56), "PMC2329613": (0, 31, "CC-BY-2.0", 25), "PMC2994229": (0, 34, "", 31),
    "PMC2599765": (3, 58, "CC-PDM-1.0", 52), "PMC3574550": (2, 40, "CC-BY-NC-3.0", 30),
    "PMC3585041": (1, 32, "CC-BY", 21), "PMC1790863": (3, 33, "CC-BY", 26), "PMC3460867": (4, 58, "CC-BY", 44),
}  # fmt: skip


@pytest.mark.real_data
def test_every_figure_and_reference_of_eight_real_articles(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("pmc_jats") / "data"
    found: dict[str, Article] = {}
    for path in sorted(folder.glob("*.nxml")):
        data = path.read_bytes()
        got = found[parse(data).id] = parse(data)
        shown = [f for f in got.figures if f.kind == "figure"]
        assert len(shown) == data.count(b"<fig ")
        assert len(got.references) == data.count(b"<ref ")
        assert sum(len(f.graphics) for f in got.figures) <= data.count(b"<graphic")
        assert all(f.graphics and f.label and f.text and got.context(f) for f in shown)
        assert all(r.text for r in got.references)
    counted = {
        i: (
            sum(f.kind == "figure" for f in a.figures), len(a.references), a.licence,
            sum(bool(r.pmid) for r in a.references),
        )
        for i, a in found.items()
    }  # fmt: skip
    assert counted == COUNTS
    assert sum(n for n, *_ in counted.values()) == 17
    assert sum(f.kind == "formula" for a in found.values() for f in a.figures) == 24
    text = found["PMC3460867"].figures[0].text
    assert text.startswith("Chemical structure of inhibitors.\nChemical structures of A, THL and B, MmPPOX.")
    records = [r for ref in walk(folder, source="pmc") if ref.key.endswith(".nxml") for r in read(ref)]
    shown = [r for r in records if isinstance(r, Record) and "article" in r.groups]
    assert sum(r.groups["modality"] == "article" for r in shown) == 8
    figures = [r for r in shown if r.groups["modality"] == "figure"]
    assert len(figures) == 17
    assert all(r.first("caption") and r.first("context") and r.regions for r in figures)
    assert {r.groups["problem"] for r in figures} == {"image_missing"}  # the set has no pictures
