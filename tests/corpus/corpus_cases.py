"""Records for the corpus tests: hand-made ones that use every field, and a hypothesis strategy over all of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fabrica.types import KINDS, Absent, Blob, Item, Link, Origin, Record, Region, Rights


def note(name: str, text: str = "No effusion.", **more: Any) -> Record:
    """A small record with one report."""
    origin = Origin("made", f"{name}.txt", "", "CC0-1.0", "synthetic")
    report = {"report": (Item("text", text, origin),)}
    return Record(name, f"p-{name}", **{"items": report, **more})


def full(name: str, subject: str = "p1", seed: int = 0) -> Record:
    """A record that uses every field of every noun."""
    rng = np.random.default_rng(seed)
    origin = Origin("hospital", f"{name}/scan.nii", "ab" * 32, "CC-BY-4.0", "source", ("resampled 1 mm", "windowed"))
    human = Origin("readers", f"{name}#1", "", "", "human")
    affine = np.array([[-1.5, 0, 0, 90.1], [0, 1.5, 0, -126.3], [0, 0, 2.0, -72.0], [0, 0, 0, 1]])
    return Record(
        id=name,
        subject=subject,
        groups={"modality": "ct", "study": "s1", "site": "A"},
        items={
            "ct": (
                Item("volume", rng.integers(-1000, 1000, (5, 4, 3)).astype(np.int16), origin, 0.5, "HU", affine),
                Item("volume", Absent.UNREADABLE, origin, hours=1e-300),
            ),
            "cxr/frontal": (Item("image", rng.integers(0, 255, (7, 6, 3), dtype=np.uint8), human),),
            "ecg": (
                Item(
                    "signal",
                    rng.standard_normal((2, 9)).astype(">f4"),
                    origin,
                    unit="mV",
                    rate=499.9,
                    names=("I", "II"),
                ),
            ),
            "report": (Item("text", "Kein Erguss. 胸水なし \x00 end", human), Item("text", "", origin)),
            "slide": (Item("slide", Blob("s.svs", "image/tiff", 1 << 40, "cd" * 32), origin),),
            "labs": (Item("table", Absent.NOT_DONE, origin),),
            "prior": (),
        },
        regions=(
            Region("ct", "mask", rng.integers(0, 2, (5, 4, 3)).astype(bool), "lesion", human, 0, "left", 0.1 + 0.2),
            Region("cxr/frontal", "box", np.array([1.0, 2.0, 3.5, 4.25]), "mass", human),
        ),
        labels={"effusion": 1.0, "mass": Absent.NOT_LINKED, "age": 0.1, "tiny": 5e-324},
        links=(Link("same_subject", "other", 0.75), Link("cites", "x")),
        rights=Rights("CC-BY-4.0", "credentialed", "full", "v2", "A. Author"),
        split="train",
    )


# ---------------------------------------------------------------- equality to the last bit


def plain(value: Any) -> Any:
    """A value as nested tuples that compare bit for bit."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.dtype.descr, value.shape, value.tobytes())
    if isinstance(value, float):
        return ("float", value.hex() if value == value else "nan")
    if isinstance(value, (Record, Item, Region, Origin, Blob, Link, Rights)):
        return (type(value).__name__, *((f.name, plain(getattr(value, f.name))) for f in fields(value)))
    if isinstance(value, (tuple, list)):
        return tuple(plain(v) for v in value)
    if hasattr(value, "items"):
        return tuple((k, plain(v)) for k, v in value.items())
    return (type(value).__name__, value)


# ---------------------------------------------------------------- strategies

DTYPES = ["|u1", "<u2", "<i2", ">i2", "<i4", "<i8", "<f2", "<f4", ">f4", "<f8", "<c8", "|b1", "<U3", "<M8[ms]"]
words = st.text(max_size=12)
anything = st.text(st.characters(), max_size=12)  # with lone surrogates, as undecodable file names have
floats = st.floats(allow_nan=False)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
origins = st.builds(
    Origin, anything, anything, words, words, st.sampled_from(["source", "human", "model", "synthetic"]),
    st.lists(words, max_size=2).map(tuple),
)  # fmt: skip
blobs = st.builds(Blob, anything, words, st.integers(0, 1 << 60), words)
affines = hnp.arrays(np.float64, (4, 4), elements=st.floats(width=64))
items = st.builds(
    Item, st.sampled_from(KINDS), arrays | anything | blobs | st.sampled_from(list(Absent)), origins,
    st.none() | floats, st.none() | words, st.none() | affines, st.none() | floats,
    st.lists(words, max_size=3).map(tuple),
)  # fmt: skip
regions = st.builds(
    Region, words, st.sampled_from(["box", "polygon", "mask", "point", "time", "span"]), arrays, words, origins,
    st.integers(0, 5), st.none() | anything, st.none() | floats,
)  # fmt: skip
rights = st.builds(
    Rights, words, st.sampled_from(["open", "credentialed", "restricted"]), st.just("full"), words, words
)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
records = st.builds(
    Record, ids, ids, st.dictionaries(words, anything, max_size=3),
    st.dictionaries(words, st.lists(items, max_size=2).map(tuple), max_size=3),
    st.lists(regions, max_size=2).map(tuple),
    st.dictionaries(words, floats | st.sampled_from(list(Absent)), max_size=3),
    st.lists(st.builds(Link, words, words, st.none() | floats), max_size=2).map(tuple), rights,
    st.sampled_from([None, "train", "val", "test", "hidden"]),
)  # fmt: skip
