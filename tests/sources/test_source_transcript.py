"""Transcripts beside a recording: VTT, SRT and JSON to timed words; hostile files are typed refusals."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import Refused
from fabrica.sources.transcript import Sidecar, shared, words
from fabrica.types import Blob, Item, Origin, Transcriber

ORIGIN = Origin("made", "talks/a.wav", "", "CC-BY-4.0")
VTT = """\ufeffWEBVTT - talk

NOTE made for a test

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.000 align:start
<v Dr. A>no <i>effusion</i>

00:00:02.000 --> 00:00:04.000
<00:00:02.000><c>left</c> <00:00:03.500><c>lung</c>
"""


def test_vtt_with_notes_tags_and_word_times() -> None:
    assert words(VTT.encode(), ".vtt") == [
        (1.0, 1.2, "no", None), (1.2, 2.0, "effusion", None), (2.0, 3.5, "left", None), (3.5, 4.0, "lung", None)
    ]  # fmt: skip


def test_srt_with_hours_and_windows_line_ends() -> None:
    data = b"1\r\n01:00:00,500 --> 01:00:01,500\r\nmass\r\n\r\n2\r\n01:00:02,000 --> 01:00:03,000\r\nin the\r\nlobe\r\n"
    assert [(w, s) for s, _, w, _ in words(data, ".srt")] == [
        ("mass", 3600.5), ("in", 3602.0), ("the", 3602.222222), ("lobe", 3602.555556)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        [{"word": "mass", "start": 0, "end": 1, "score": 0.5}],
        {"words": [{"text": "mass", "start": 0, "end": 1, "probability": 0.5}]},
        {"segments": [{"text": "mass", "start": 0, "end": 1,
                       "words": [{"word": " mass", "start": 0.0, "end": 1.0, "probability": 0.5}]}]},
    ],
)  # fmt: skip
def test_json_as_the_tools_write_it(data: object) -> None:
    assert words(json.dumps(data).encode(), ".json") == [(0.0, 1.0, "mass", 0.5)]


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (b"\xff\xfe", ".srt"), (b"1\n00:00 --> 00:01\nx\n", ".srt"), (b"[1]", ".json"), (b"{}", ".json"),
        (b'[{"word": "a", "start": NaN, "end": 1}]', ".json"), (b'[{"word": "a", "start": 2, "end": 1}]', ".json"),
        (b'[{"word": "a", "start": -1, "end": 1}]', ".json"), (b"[" * 100_000, ".json"), (b"junk", ".json"),
        (b'[{"word": "a", "start": 5, "end": 6}, {"word": "b", "start": 1, "end": 2}]', ".json"),
        (b'[{"word": "a", "start": "x", "end": 6}]', ".json"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_bad_transcripts_are_refused(data: bytes, suffix: str) -> None:
    with pytest.raises(Refused, match="transcript_bad"):
        words(data, suffix)


@given(st.floats(0, 1e4), st.floats(0, 100), st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_shared_words_fill_the_cue_in_order(start: float, length: float, text: str) -> None:
    out = list(shared(start, start + length, text))
    assert [w for _, _, w, _ in out] == text.split()
    if out:
        assert out[0][0] == pytest.approx(start, abs=1e-5)
        assert out[-1][1] == pytest.approx(start + length, abs=1e-5)
        assert all(a[1] == pytest.approx(b[0]) for a, b in itertools.pairwise(out))


def test_beside_a_file_or_under_the_root(tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nno effusion\n")
    hear = Sidecar(tmp_path)
    assert isinstance(hear, Transcriber)
    sound = Item("audio", np.zeros((1, 9)), ORIGIN, rate=9.0)
    video = Item("video", Blob(str(tmp_path / "talks" / "a.mp4"), "video/mp4", 9, ""), ORIGIN)
    for item in (sound, video):
        first, second = hear(item)
        assert (first.text, first.shape, first.data.tolist()) == ("no", "time", [1.0, 1.2])
        assert (second.role, second.origin.steps, second.origin.by) == ("audio", ("transcript:srt",), "source")
    with pytest.raises(Refused, match="no_transcript"):
        hear(Item("audio", np.zeros((1, 9)), Origin("made", "talks/b.wav", "", ""), rate=9.0))
    (tmp_path / "secret.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nx\n")
    with pytest.raises(Refused, match="outside"):
        Sidecar(tmp_path / "talks")(Item("audio", np.zeros((1, 9)), Origin("made", "../secret.wav", "", ""), rate=9.0))
