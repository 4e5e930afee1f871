"""Web pools and MEDLINE files: every row and article is a record or named; broken pieces cost themselves alone."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fabrica.sources import Quarantined, Ref, read, sniff
from fabrica.sources import medline as medline_source
from fabrica.types import Absent, Link, Record


def pool(path: Path, rows: list[dict[str, Any]]) -> Ref:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return Ref(path, path.name, "pool", "")


ROW = {
    "uid": "u1", "url": "https://a.example/x.jpg", "text": "a chest film", "original_width": 400,
    "original_height": 200, "clip_l14_similarity_score": 0.25, "face_bboxes": [[0.1, 0.2, 0.3, 0.4]],
    "sha256": "ab" * 32,
}  # fmt: skip


def test_a_row_is_a_record_with_a_lazy_picture(tmp_path: Path) -> None:
    ref = pool(tmp_path / "p.parquet", [ROW])
    assert sniff(ref.path) == "webpool"
    (one,) = read(ref)
    assert isinstance(one, Record)
    assert (one.subject, dict(one.groups)) == ("u1", {"modality": "web", "domain": "a.example"})
    image = one.items["image"][0]
    assert (image.value, image.origin.key, image.origin.sha256) == (Absent.NOT_DONE, ROW["url"], "ab" * 32)
    assert one.first("caption").text() == "a chest film"
    assert one.labels == {"clip_l14_similarity_score": 0.25, "original_width": 400.0, "original_height": 200.0}
    (face,) = one.regions
    np.testing.assert_allclose(face.data, [40, 40, 120, 80])


def test_every_row_is_a_record_or_named(tmp_path: Path) -> None:
    rows = [
        ROW, ROW | {"uid": None}, ROW | {"uid": "u3", "url": None, "text": None},
        ROW | {"uid": "u4", "url": "javascript:alert(1)"}, ROW | {"uid": "u5", "text": None, "sha256": "zz"},
        ROW | {"uid": "u6", "clip_l14_similarity_score": float("nan"), "original_width": None},
        ROW | {"uid": "u7", "face_bboxes": [[0.1, 0.2]]}, ROW | {"uid": "u8", "url": "http://[::1", "face_bboxes": []},
        ROW | {"uid": "u9", "face_bboxes": [[0.1, 0.2, 0.3, 0.4]] * 300},
    ]  # fmt: skip
    found = list(read(pool(tmp_path / "p.parquet", rows)))
    assert [f.code if isinstance(f, Quarantined) else f.items["image"][0].value.value for f in found] == [
        "not_done", "no_uid", "row_empty", "unreadable", "not_done", "not_done", "face_box", "unreadable", "face_box",
    ]  # fmt: skip
    u5, u6 = found[4], found[5]
    assert isinstance(u5, Record)
    assert isinstance(u6, Record)
    assert u5.items["caption"][0].value is Absent.NOT_DONE
    assert u5.items["image"][0].origin.sha256 == ""
    assert "clip_l14_similarity_score" not in u6.labels
    assert u6.regions[0].text == "relative", "a share of an unknown size"


def test_laion_names_and_a_map_of_the_users_own(tmp_path: Path) -> None:
    laion = {"SAMPLE_ID": 7, "URL": "http://b.example/y.png", "TEXT": "t", "WIDTH": 9, "HEIGHT": 8, "similarity": 0.3}
    ref = pool(tmp_path / "laion.parquet", [laion])
    (one,) = read(ref)
    assert isinstance(one, Record)
    assert (one.subject, one.labels["similarity"]) == ("7", 0.3)
    mapped = Ref(ref.path, ref.key, "mine", "CC0-1.0", {"caption": "TEXT", "subject": "SAMPLE_ID"})
    (own,) = read(mapped)
    assert isinstance(own, Record)
    assert "image" not in own.items
    assert sniff(pool(tmp_path / "t.parquet", [{"id": 1, "url": "u", "text": "t"}]).path) == "table"


# ---------------------------------------------------------------- MEDLINE

HEAD = b"""<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle//EN" "https://dtd.example/pubmed.dtd">
<PubmedArticleSet>
"""


def article(
    pmid: str = "1", title: str = "A <i>title</i>", abstract: str = "", more: str = "", tail: str = ""
) -> bytes:
    return (
        f'<PubmedArticle><MedlineCitation Status="MEDLINE"><PMID>{pmid}</PMID><Article><Journal>'
        "<JournalIssue><PubDate><MedlineDate>1999 Nov-Dec</MedlineDate></PubDate></JournalIssue></Journal>"
        f"<ArticleTitle>{title}</ArticleTitle>"
        f"<Abstract>{abstract}</Abstract><Language>eng</Language></Article>{more}</MedlineCitation>"
        f"<PubmedData>{tail}</PubmedData></PubmedArticle>\n"
    ).encode()


def medline(path: Path, *articles: bytes) -> Ref:
    data = HEAD + b"".join(articles) + b"</PubmedArticleSet>"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return Ref(path, path.name, "medline", "NLM PubMed terms")


@pytest.mark.parametrize("name", ["m.xml", "m.xml.gz"])
def test_an_article(tmp_path: Path, name: str) -> None:
    one = article(
        "42", abstract='<AbstractText Label="AIM">Why</AbstractText><AbstractText>So</AbstractText>',
        more="<MeshHeadingList><MeshHeading><DescriptorName MajorTopicYN='N'>Lung</DescriptorName>"
        "<QualifierName MajorTopicYN='Y'>pathology</QualifierName></MeshHeading><MeshHeading>"
        "<DescriptorName MajorTopicYN='N'>Adult</DescriptorName></MeshHeading></MeshHeadingList>",
        tail="<ArticleIdList><ArticleId IdType='doi'>10.1/x</ArticleId></ArticleIdList><ReferenceList><Reference>"
        "<ArticleIdList><ArticleId IdType='pubmed'>7</ArticleId></ArticleIdList></Reference><Reference>"
        "<ArticleIdList><ArticleId IdType='doi'>10.2/y</ArticleId></ArticleIdList></Reference></ReferenceList>",
    )  # fmt: skip
    ref = medline(tmp_path / name, one)
    assert sniff(ref.path) == "medline"
    (got,) = read(ref)
    assert isinstance(got, Record)
    assert got.subject == "pmid:42"
    assert got.groups["doi"] == "10.1/x"
    assert got.groups["year"] == "1999"
    assert got.first("title").text() == "A title"
    assert [(i.text(), i.names) for i in got.all("abstract")] == [("Why", ("AIM",)), ("So", ())]
    assert got.labels == {"mesh/Lung": 1.0, "major/Lung": 1.0, "mesh/Adult": 1.0}
    assert got.links == (Link("cites", "pmid:7"), Link("cites", "doi:10.2/y"))
    assert got.rights.licence == "NLM PubMed terms"


def test_a_broken_article_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medline_source, "_MOST", 5000)
    entity = b'<PubmedArticle><!DOCTYPE a [<!ENTITY x "y">]>&x;</PubmedArticle>'
    deep = b"<PubmedArticle>" + b"<a>" * 400 + b"</a>" * 400 + b"</PubmedArticle>"
    huge = article("9", "x" * 3_000_000)
    found = list(read(medline(
        tmp_path / "m.xml", article("1"), article("x"), article("2", "&unknown;"), entity, deep, article("3", ""),
        huge, article("4"),
    )))  # fmt: skip
    codes = [f.code if isinstance(f, Quarantined) else f.groups["pmid"] for f in found]
    assert codes == ["1", "no_pmid", "xml_bad", "xml_entity", "xml_bad", "no_text", "article_too_large", "4"]


def test_a_cut_file_and_one_without_articles(tmp_path: Path) -> None:
    ref = medline(tmp_path / "m.xml", article("1"), article("2"))
    ref.path.write_bytes(ref.path.read_bytes()[:-80])
    found = list(read(ref))
    assert [f.code if isinstance(f, Quarantined) else "record" for f in found] == ["record", "medline_cut"]
    empty = medline(tmp_path / "e.xml")
    assert [f.code for f in read(empty) if isinstance(f, Quarantined)] == ["medline_bad"]


@pytest.mark.parametrize("at", [*range(1_048_500, 1_048_640, 7)])
def test_articles_across_the_chunks_of_reading(tmp_path: Path, at: int) -> None:
    filler = article("1", "y" * (at - len(HEAD) - len(article("1", ""))))
    found = list(read(medline(tmp_path / "m.xml", filler, article("2"), article("3"))))
    assert [r.groups["pmid"] for r in found if isinstance(r, Record)] == ["1", "2", "3"]
