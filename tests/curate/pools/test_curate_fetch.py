"""Pictures of a web pool from a server of this machine: every failure named, nothing asked for twice, faces gone."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.curate.pools.fetch import WEB, FetchImages, blurred
from fabrica.errors import Refused
from fabrica.sources import Ref, read
from fabrica.types import Absent, Record
from web_server import Web, web

FAST = replace(WEB, interval=0.0, retries=1, first_wait=0.01, seconds=5.0, per_host=8)


@pytest.fixture
def server() -> Iterator[Web]:
    with web() as made:
        yield made


def picture(seed: int = 0, shape: tuple[int, ...] = (40, 80, 3)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def png(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def row(server: Web, uid: str, path: str, **more: Any) -> dict[str, Any]:
    base = {"uid": uid, "url": server.url(path), "text": f"text {uid}", "width": 80, "height": 40, "sha256": ""}
    return base | {"face_bboxes": []} | more


def records(tmp_path: Path, rows: list[dict[str, Any]]) -> list[Record]:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    return [r for r in read(Ref(tmp_path / "pool.parquet", "pool.parquet", "pool", "")) if isinstance(r, Record)]


def step(tmp_path: Path, **more: Any) -> FetchImages:
    base: dict[str, Any] = {
        "cache": str(tmp_path / "cache"), "allow_network": True, "allow_private": True, "policy": FAST,
    }  # fmt: skip
    return FetchImages(**base | more)


def through(one: FetchImages, given: list[Record]) -> tuple[dict[str, Record], dict[str, str]]:
    dropped: dict[str, str] = {}
    kept = {r.subject: r for r in one(given, lambda r, why: dropped.__setitem__(r.subject, why))}
    return kept, dropped


def pool(server: Web, tmp_path: Path) -> list[Record]:
    server.page("/ok.png", png(picture()))
    server.page("/busy", b"", 503)
    server.page("/html", b"<html>", kind="text/html")
    server.page("/no", png(picture()), X_Robots_Tag="noai")
    server.page("/broken.png", png(picture())[:500])
    server.page("/inside", b"", 302, Location="file:///etc/passwd")
    return records(
        tmp_path,
        [
            row(server, "ok", "/ok.png", sha256=hashlib.sha256(png(picture())).hexdigest()),
            row(server, "gone", "/gone"), row(server, "busy", "/busy"), row(server, "html", "/html"),
            row(server, "no", "/no"), row(server, "broken", "/broken.png"), row(server, "inside", "/inside"),
            row(server, "changed", "/ok.png", sha256="0" * 64), row(server, "bad", "/x", url="javascript:1"),
        ],
    )  # fmt: skip


FAILED = {
    "gone": "fetch_not_found", "busy": "fetch_busy", "html": "fetch_media_type", "no": "fetch_opt_out",
    "broken": "image_image_broken", "inside": "fetch_url_scheme", "changed": "fetch_sha256", "bad": "fetch_url_bad",
}  # fmt: skip


def test_every_row_has_its_picture_or_its_reason(server: Web, tmp_path: Path) -> None:
    given = pool(server, tmp_path)
    kept, dropped = through(step(tmp_path), given)
    assert dropped == FAILED
    (ok,) = kept.values()
    item = ok.items["image"][0]
    np.testing.assert_array_equal(item.array(), picture())
    assert item.origin.key == server.url("/ok.png")
    assert item.origin.sha256 == hashlib.sha256(png(picture())).hexdigest()
    assert item.origin.steps[0] == "fetched"


def test_nothing_is_asked_for_twice_but_what_may_pass(server: Web, tmp_path: Path) -> None:
    given = pool(server, tmp_path)
    through(step(tmp_path), given)
    asked = dict(server.asked)
    _, dropped = through(step(tmp_path), given)
    assert dropped == FAILED
    assert dict(server.asked) == asked
    server.page("/busy", png(picture(1)))
    kept, dropped = through(step(tmp_path, again=1), given)
    assert set(kept) == {"ok", "busy"}
    assert {p: n - asked[p] for p, n in server.asked.items() if n != asked[p]} == {"/busy": 1}


def test_without_the_flag_the_cache_serves_and_the_rest_is_refused(server: Web, tmp_path: Path) -> None:
    given = pool(server, tmp_path)
    with pytest.raises(Refused, match="network_off"):
        through(step(tmp_path, allow_network=False), given)
    assert not server.asked
    through(step(tmp_path), given)
    kept, dropped = through(step(tmp_path, allow_network=False), given)
    assert (set(kept), dropped) == ({"ok"}, FAILED)


def test_failures_may_be_kept_as_absent(server: Web, tmp_path: Path) -> None:
    kept, dropped = through(step(tmp_path, keep_failed=True), pool(server, tmp_path))
    assert not dropped
    assert len(kept) == 9
    assert kept["gone"].items["image"][0].value is Absent.UNREADABLE
    assert kept["gone"].items["image"][0].origin.steps == ("fetch_not_found",)
    assert kept["gone"].first("caption").text() == "text gone"


def test_faces_are_blurred_at_load_also_in_the_cache(server: Web, tmp_path: Path) -> None:
    original = picture(3)
    server.page("/f.png", png(original))
    box = [0.25, 0.25, 0.5, 0.75]  # of 80 x 40: x 20..40, y 10..30
    half = row(server, "half", "/f.png", face_bboxes=[box], width=160, height=80)  # the pool states twice the size
    unknown = row(server, "unknown", "/f.png", face_bboxes=[box], width=None, height=None)
    given = records(tmp_path, [row(server, "face", "/f.png", face_bboxes=[box]), half, unknown])
    kept, dropped = through(step(tmp_path), given)
    assert not dropped
    for one in kept.values():
        got = one.items["image"][0].array()
        np.testing.assert_array_equal(got[:, 46:], original[:, 46:])
        inside = got[10:30, 20:40].astype(float) - original[10:30, 20:40]
        assert np.abs(inside).mean() > 40, "the noise of the face is gone"
        assert got[10:30, 20:40].std() < 0.35 * original[10:30, 20:40].std()
        assert "faces_blurred" in one.items["image"][0].origin.steps
        np.testing.assert_allclose(one.regions[0].data, [20, 10, 40, 30])
        assert one.regions[0].text is None
    files = [np.asarray(Image.open(p)) for p in (tmp_path / "cache").rglob("*.img")]
    assert files
    assert all((f[12:28, 22:38] != original[12:28, 22:38]).mean() > 0.9 for f in files)
    plain, _ = through(step(tmp_path, blur=False), given)
    np.testing.assert_array_equal(plain["face"].items["image"][0].array(), original)


def test_large_pictures_are_scaled_with_their_boxes(server: Web, tmp_path: Path) -> None:
    server.page("/f.png", png(picture(3)))
    given = records(tmp_path, [row(server, "face", "/f.png", face_bboxes=[[0.25, 0.25, 0.5, 0.75]])])
    kept, _ = through(step(tmp_path, longest=40), given)
    assert kept["face"].items["image"][0].array().shape == (20, 40, 3)
    np.testing.assert_allclose(kept["face"].regions[0].data, [10, 5, 20, 15])


@pytest.mark.parametrize("shape", [(30, 30), (30, 30, 3), (1, 1), (3, 50)])
def test_blur_takes_any_box(shape: tuple[int, ...]) -> None:
    one = picture(0, shape)
    boxes = [np.array(b, float) for b in ([-9, -9, 99, 99], [5, 5, 5, 5], [20, 20, 10, 10], [40, 40, 50, 50])]
    out = blurred(one, boxes)
    assert (out.shape, out.dtype) == (one.shape, one.dtype)


def test_a_plan_that_is_stopped_goes_on(server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the third, tenth and last picture: the result is the same and each URL was asked for once."""
    from fabrica.curate.pools import fetch

    for n in range(12):
        server.page(f"/{n}.jpg", png(picture(n, (30, 30, 3)), "JPEG"), kind="image/jpeg")
    source = Corpus.at(tmp_path / "pool")
    source.append(records(tmp_path, [row(server, f"u{n}", f"/{n}.jpg") for n in range(12)] + [row(server, "x", "/x")]))
    monkeypatch.setattr(fetch, "_BATCH", 1)
    real = FetchImages._keep
    for stop in (3, 10, 13):
        seen = []

        def keep(self: FetchImages, *args: Any, seen: list[int] = seen, stop: int = stop) -> None:
            real(self, *args)
            seen.append(1)
            if len(list((tmp_path / "cache").rglob("*.json"))) >= stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(FetchImages, "_keep", keep)
        with pytest.raises(KeyboardInterrupt):
            curate.run([step(tmp_path)], source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    monkeypatch.setattr(FetchImages, "_keep", real)
    report = curate.run([step(tmp_path)], source, tmp_path / "out")
    assert (report.kept, report.dropped) == (12, {"fetch_images": {"fetch_not_found": 1}})
    assert max(server.asked.values()) == 1
    assert Corpus.open(tmp_path / "out").count("array_has(kinds, 'image')") == 12
    ledger = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    assert [(r["step"], r["reason"]) for r in ledger] == [("fetch_images", "fetch_not_found")]
    assert json.loads((tmp_path / "out" / "curate.json").read_text())["plan"][0]["name"] == "fetch_images"
