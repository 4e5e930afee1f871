"""The residual audit: plant identifiers in every channel, de-identify, look for what is left; recall with intervals.

Clopper, Pearson, "The use of confidence or fiducial limits", Biometrika 1934: exact 95 % intervals.
"""

from __future__ import annotations

import gzip
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fabrica.curate.deid.dicom_table import Options
from fabrica.curate.deid.files import deidentify_files
from fabrica.curate.deid.key import Key
from fabrica.curate.deid.pixels import TextReader
from fabrica.curate.deid.plants import Plant
from fabrica.curate.deid.scene import UNSEEN, Scene, make_scene
from fabrica.curate.deid.scene_dicom import burned_left, uid_references

STRUCTURED, FREE, UIDS, CLINICAL = 0.999, 0.99, 1.0, 0.01  # bars, of GROUP-2 section 8 and issue 3
FREE_CHANNELS = ("sr_text", "reports", "table_notes")
CHANNELS = (
    "dicom_tags", "dicom_private", "dicom_sequences", "uids", "sr_text", "burned_in", "reports", "table_cells",
    "table_notes", "signal_headers", "file_names", "image_metadata", "nifti_json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Channel:
    """How many plants a channel had and how many are `left`; `withheld` of them went with a file that was left out.

    `low`, `high`: exact 95 % interval of recall. `kinds`: (planted, left) by kind of identifier."""

    name: str
    planted: int
    left: int
    withheld: int
    recall: float
    low: float
    high: float
    bar: float
    kinds: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether recall reaches the bar."""
        return self.recall >= self.bar


@dataclass(frozen=True, slots=True)
class Audit:
    """The channels, and how many of the planted clinical `terms` were damaged (`lost`). `unseen`: free text in words
    and with names that the rules were not made with (`deid.unseen`); it has the bar of free text, and stands apart
    from `met`, which is about what an author of both rules and notes can vouch for."""

    channels: tuple[Channel, ...]
    unseen: Channel
    terms: int
    lost: int
    seeds: tuple[int, ...]
    misses: tuple[tuple[str, str, str], ...] = ()  # (channel, kind, planted text): invented, so it may be shown

    @property
    def false_positives(self) -> float:
        """Share of clinical terms that were changed."""
        return self.lost / self.terms if self.terms else 0.0

    @property
    def met(self) -> bool:
        """Whether every bar holds in the channels, `unseen` apart."""
        return all(c.met for c in self.channels) and self.false_positives <= CLINICAL


def interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson 95 % interval of a share.

    >>> [round(v, 4) for v in interval(1000, 1000)], [round(v, 3) for v in interval(9, 10)]
    ([0.9963, 1.0], [0.555, 0.997])
    """
    from scipy.stats import beta

    if n == 0:
        return 0.0, 1.0
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(0.975, hits + 1, n - hits))
    return low, high


def audit(
    seeds: Sequence[int] = (0, 1, 2), *, patients: int = 20, options: Options | None = None,
    reader: TextReader | None = None,
) -> Audit:  # fmt: skip
    """Plant and look, once a seed; seeds from 100 are for development, those below for reporting.

    60 patients in all (three seeds of 20) put 3,700 plants and more into each channel, so that the interval of a
    channel without a miss begins at 0.999; plants of one file are not independent, which it does not know.
    """
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    misses: list[tuple[str, str, str]] = []
    terms = lost = 0
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            scene = make_scene(Path(folder) / "source", seed, patients)
            key = Key(f"audit key of seed {seed:06d}".ljust(32, ".").encode())
            into = Path(folder) / "clean"
            deidentify_files(scene.root, into, key, options=options, reader=reader, name="audit")
            for channel, plant, how in _look(scene, into, key):
                row = counts[channel][plant.kind]
                row[0] += 1
                row[1] += how == "left"
                row[2] += how == "withheld"
                if how == "left" and channel != UNSEEN:
                    misses.append((channel, plant.kind, plant.text))
            terms += sum(len(t) for t in scene.terms.values())
            lost += _lost(scene, into, key)
    channels = tuple(_channel(name, counts[name]) for name in CHANNELS if name in counts)
    return Audit(channels, _channel(UNSEEN, counts[UNSEEN]), terms, lost, tuple(seeds), tuple(misses))


def _channel(name: str, kinds: Mapping[str, list[int]]) -> Channel:
    n, left, withheld = (sum(k[i] for k in kinds.values()) for i in range(3))
    low, high = interval(n - left, n)
    bar = UIDS if name == "uids" else FREE if name in (*FREE_CHANNELS, UNSEEN) else STRUCTURED
    by_kind = {k: (v[0], v[1]) for k, v in sorted(kinds.items())}
    return Channel(name, n, left, withheld, (n - left) / n if n else 0.0, low, high, bar, by_kind)


def _look(scene: Scene, into: Path, key: Key) -> list[tuple[str, Plant, str]]:
    """(channel, plant, "gone" | "left" | "withheld") of every plant."""
    texts = _outputs(into)
    names = "\n".join(str(p.relative_to(into)) for p in sorted(into.rglob("*"))).lower()
    out: list[tuple[str, Plant, str]] = []
    readable: dict[str, str] = {}  # a file has many plants
    for channel, path, plant in scene.plants:
        base = key.pseudonym("file", path)
        if channel == "file_names":
            out.append((channel, plant, "left" if _stands(plant, names) else "gone"))
        elif base not in texts:
            out.append((channel, plant, "withheld"))
        elif channel == "burned_in":
            out.append((channel, plant, "left" if burned_left(texts[base][0], plant) else "gone"))
        else:
            if base not in readable:
                readable[base] = "\n".join(_readable(p) for p in texts[base])
            out.append((channel, plant, "left" if _stands(plant, readable[base]) else "gone"))
    files = {
        path: texts[key.pseudonym("file", path)][0] for path in scene.dicom if key.pseudonym("file", path) in texts
    }
    for old, news in uid_references(scene, files).items():  # one old UID must have one new one, in every file
        out.append(("uids", Plant("reference", old, (old,)), "gone" if len(news) == 1 and old not in news else "left"))
    return out


def _outputs(into: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(into.rglob("*")):
        if path.is_file() and path.parent != into:
            found[path.name.split(".")[0].split("_")[0]].append(path)
    return found


def _readable(path: Path) -> str:
    """Everything that could be read out of a file: its bytes as UTF-8, Latin-1 and UTF-16 text, unpacked."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return str(pq.read_table(path).to_pylist()).lower()
    text = data.decode("utf-8", "replace") + "\n" + data.decode("latin-1")
    return (text + "\n" + data[: 1 << 20].decode("utf-16-le", "ignore")).lower()


def _stands(plant: Plant, text: str) -> bool:
    """Whether one of its words stands in a text, with no letter or digit before or behind it.

    >>> _stands(Plant("id", "A7", ("A7",)), "x_a7."), _stands(Plant("id", "A7", ("A7",)), "a71 ba7")
    (True, False)
    """
    return any(_stands_alone(word.lower(), text) for word in plant.words)


def _stands_alone(word: str, text: str) -> bool:
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not text[at - 1 : at].isalnum() and not text[end : end + 1].isalnum():
            return True
        at = text.find(word, at + 1)
    return False


def _lost(scene: Scene, into: Path, key: Key) -> int:
    """Clinical terms of reports that are not there any more."""
    texts = _outputs(into)
    lost = 0
    for path, terms in scene.terms.items():
        found = texts.get(key.pseudonym("file", path))
        if not found:
            lost += len(terms)
            continue
        text = found[0].read_text("utf-8")
        for term in set(terms):
            lost += max(0, terms.count(term) - text.count(term))
    return lost
