"""A record as named parts for other tools: PNG, NPY and text, and a JSON that says how they make up the record."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fabrica.corpus import codec
from fabrica.corpus.rights import USES, Use, may
from fabrica.corpus.store import Corpus
from fabrica.errors import Refused, unknown
from fabrica.safe import LIMITS, check_array
from fabrica.types import Absent, Item, Record, record_id

Part = NDArray[Any] | str


@dataclass(frozen=True, slots=True)
class Exported:
    """What a view holds: `records` written, of which `withheld` by id only; `left_out` may not be shared at all.
    `reasons`: code (see `corpus.rights.REASONS`) -> records that are withheld or left out for it."""

    records: int
    withheld: int
    left_out: int
    reasons: Mapping[str, int] = field(default_factory=dict, compare=False)


class Shared:
    """The records that may leave, by their rights: "full" whole, "ids_only" without values, "none" not at all, nothing
    whose consent was withdrawn. Every view reads a corpus through this.

    `use` asks more: "redistribute" withholds whatever may not be passed on, and leaves out what even by id may not;
    "train_commercial" and "train_research" leave out what may not be learnt from.
    """

    def __init__(self, corpus: Corpus, where: str | None, use: Use | None = None) -> None:
        if use is not None and use not in USES:
            raise unknown("use", use, USES)
        self._corpus, self._where, self._use = corpus, where, use
        self.records = self.withheld = self.left_out = 0
        self.reasons: Counter[str] = Counter()
        self.licences: set[str] = set()

    def __iter__(self) -> Iterator[Record]:
        for record in self._corpus.scan(self._where):
            ids = may(record, "share_ids")
            whole = may(record, self._use) if self._use else ids
            if not ids.allowed or (not whole.allowed and self._use not in ("redistribute", "share_ids")):
                self.left_out += 1
                self.reasons[(whole if ids.allowed else ids).reason] += 1
                continue
            self.records += 1
            self.licences.add(whole.licence)
            if record.rights.share != "full" or not whole.allowed or self._use == "share_ids":
                self.withheld += 1
                self.reasons[whole.reason if not whole.allowed else "share_ids_only"] += 1
                record = withheld(record)
            yield record

    def report(self) -> Exported:
        """The counts once everything was read."""
        return Exported(self.records, self.withheld, self.left_out, dict(sorted(self.reasons.items())))


_PUBLIC_GROUPS = ("modality", "source", "data", "article", "pmid", "doi", "pmc")


def withheld(record: Record) -> Record:
    """What of a record may leave where only ids may: its ids, what kinds of things it has, where each came from. No
    value, label, region, time, name or relation; of the groups those alone that say what kind of record it is."""
    items = {
        role: tuple(Item(i.kind, Absent.WITHHELD, replace(i.origin, steps=())) for i in items)
        for role, items in record.items.items()
    }
    groups = {k: v for k, v in record.groups.items() if k in _PUBLIC_GROUPS}
    return replace(record, groups=groups, items=items, regions=(), labels={}, links=())


# ---------------------------------------------------------------- record -> parts


class _Namer(codec.Writer):
    """Names every text and array: role.number.txt, role.number.npy, role.number.affine.npy, region.number.npy."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Part] = {}
        self._place = ""

    def at(self, *place: object) -> None:
        self._place = ".".join(re.sub(r"[^A-Za-z0-9_-]+", "_", str(p)) for p in place)

    def _keep(self, suffix: str, value: Part) -> list[Any]:
        name = f"{self._place}.{suffix}"
        if name in self.parts:  # two roles that differ only in odd characters
            name = f"{self._place}.{len(self.parts)}.{suffix}"
        self.parts[name] = value
        return ["f", name]

    def array(self, value: NDArray[Any]) -> list[Any]:
        return self._keep("npy", np.asarray(value))

    def text(self, value: str) -> list[Any]:
        if codec.sql_text(value) != value:
            return ["s", value]  # not UTF-8: stays in the JSON
        return self._keep("txt", value)


def split_up(record: Record) -> tuple[str, dict[str, Part]]:
    """The JSON of a record and its parts by name."""
    namer = _Namer()
    return codec.meta_of(record, namer, ascii_only=True), namer.parts


class _Parts(codec.Reader):
    """Finds values among named parts."""

    def __init__(self, part: Callable[[str], Any]) -> None:
        super().__init__(b"")
        self._part = part

    def array(self, spec: Any) -> NDArray[Any]:
        found = self._part(spec[1])
        if not isinstance(found, np.ndarray):
            raise Refused("view_bad", f"part {spec[1]!r} is no array")
        return found

    def value(self, spec: Any) -> Any:
        return self._part(spec[1]) if spec[0] == "f" else super().value(spec)


def put_together(meta: str | bytes, parts: Mapping[str, Any]) -> Record:
    """The record again. `Refused("view_bad")` where a part is missing or the JSON is not ours."""
    try:
        return codec.build(json.loads(meta), _Parts(lambda name: parts[name]))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise Refused("view_bad", f"not a record of this view: {type(error).__name__} {error}") from error


def key_of(record: Record) -> str:
    """The id where it is a plain file name, else a hash of it."""
    plain = re.fullmatch(r"[A-Za-z0-9_-]{1,100}", record.id)
    return record.id if plain else record_id("key", record.id)


# ---------------------------------------------------------------- bytes of parts


def npy(array: NDArray[Any]) -> bytes:
    """The array as an .npy file."""
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def from_npy(data: bytes) -> NDArray[Any]:
    """An .npy file back, its claimed size checked first."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        check_array(shape, dtype, replace(LIMITS, array_bytes=max(len(data), 1)), what="an .npy part")
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return array
    except (ValueError, EOFError, OSError) as error:
        raise Refused("view_bad", f"an .npy part is broken: {type(error).__name__}") from error


def _as_png(array: NDArray[Any]) -> bool:
    gray = array.ndim == 2 and array.dtype.str in ("|u1", "<u2")
    colour = array.ndim == 3 and array.dtype.str == "|u1" and array.shape[2] in (3, 4)
    return (gray or colour) and min(array.shape) > 0


def png(array: NDArray[Any]) -> bytes:
    """The image as a PNG, without loss."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def from_png(data: bytes) -> NDArray[Any]:
    """A PNG back as the array it was."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            check_array((image.height, image.width, 4), "uint8", what="a PNG part")
            array = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Refused("view_bad", f"a PNG part is broken: {type(error).__name__}") from error
    return array.astype("<u2") if array.dtype.itemsize > 1 else array


# ---------------------------------------------------------------- rows for Parquet

_TEXTS = pa.list_(pa.string())
ROWS = pa.schema(
    [
        ("id", pa.string()), ("subject", pa.string()), ("split", pa.string()), ("modality", pa.string()),
        ("source", pa.string()), ("licence", pa.string()), ("tags", _TEXTS),
        ("texts", _TEXTS), ("text_names", _TEXTS),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("arrays", pa.list_(pa.struct([("name", pa.string()), ("npy", pa.binary())]))),
        ("meta", pa.string()),
    ]
)  # fmt: skip


def row(record: Record) -> dict[str, Any]:
    """One row of `ROWS`: images that PNG holds exactly as PNG, other arrays as NPY, texts as they are."""
    meta, parts = split_up(record)
    texts = {name: p for name, p in parts.items() if isinstance(p, str)}
    arrays = {name: p for name, p in parts.items() if not isinstance(p, str)}
    as_png = {name for name, p in arrays.items() if _as_png(p) and not name.endswith(".affine.npy")}
    return {
        "id": record.id, "subject": record.subject, "split": record.split,
        "modality": codec.sql_text(record.groups.get("modality")), "source": codec.sql_text(codec.source_of(record)),
        "licence": codec.sql_text(record.rights.licence), "tags": [codec.sql_text(t) for t in codec.tags(record)],
        "texts": list(texts.values()), "text_names": list(texts),
        "images": [{"bytes": png(arrays[n]), "path": n[:-3] + "png"} for n in arrays if n in as_png],
        "arrays": [{"name": n, "npy": npy(a)} for n, a in arrays.items() if n not in as_png],
        "meta": meta,
    }  # fmt: skip


def from_row(row: Mapping[str, Any]) -> Record:
    """The record of a row."""
    parts: dict[str, Any] = dict(zip(row["text_names"], row["texts"], strict=True))
    parts.update((i["path"][:-3] + "npy", from_png(i["bytes"])) for i in row["images"])
    parts.update((a["name"], from_npy(a["npy"])) for a in row["arrays"])
    return put_together(row["meta"], parts)


def tables(records: Iterable[Record], limit: int = 32 << 20) -> Iterator[pa.Table]:
    """Rows in tables of at most about `limit` bytes."""
    held: list[dict[str, Any]] = []
    size = 0
    for record in records:
        held.append(row(record))
        size += codec.size_of(record)
        if size >= limit or len(held) >= 1024:
            yield pa.Table.from_pylist(held, schema=ROWS)
            held, size = [], 0
    if held:
        yield pa.Table.from_pylist(held, schema=ROWS)


def read_parquet(path: Any) -> Iterator[Record]:
    """Records of a Parquet file that a view wrote."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=16, columns=ROWS.names):
                for values in batch.to_pylist():
                    yield from_row(values)
    except (pa.ArrowException, KeyError) as error:
        raise Refused("view_bad", f"{path} is not a file of this view: {type(error).__name__}") from error
