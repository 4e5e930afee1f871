"""The nouns: what a record, an item, a batch, a loss, a stage, a system and a proof are. Imports numpy alone.

Units stand in names or docstrings; a missing value is an `Absent` with its reason, never 0, "" or NaN.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

Kind = Literal[
    "image", "volume", "slide", "video", "signal", "audio", "series", "text", "codes", "table", "omics", "graph"
]
KINDS: tuple[str, ...] = get_args(Kind)
By = Literal["source", "human", "model", "synthetic"]
Split = Literal["train", "val", "test", "hidden"]


class Absent(StrEnum):
    """Why there is no value."""

    NOT_DONE = "not_done"
    NOT_LINKED = "not_linked"
    UNREADABLE = "unreadable"
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from and what was done to it since.

    `source` names the data set or folder, `key` the place inside it (relative path, row, DICOM UID), `sha256` the
    bytes read (hex), `licence` an SPDX id or the source's own name for its terms ("" = unknown).
    """

    source: str
    key: str
    sha256: str
    licence: str
    by: By = "source"
    steps: tuple[str, ...] = ()

    def then(self, step: str) -> Origin:
        """The same origin with one more step done."""
        return replace(self, steps=(*self.steps, step))


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes too large to hold: a file outside the record (slide, video), read in parts by its source's reader."""

    path: str
    media_type: str
    size: int
    sha256: str


Value = NDArray[Any] | str | Blob | Absent


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One observation.

    Array layouts: image (H, W) or (H, W, C); volume (X, Y, Z) or (X, Y, Z, C) with `affine`; signal (leads, samples)
    with `rate`; video (frames, H, W) or (frames, H, W, C); series and table (columns,) with NaN-free values beside
    `names`; audio (channels, samples).
    """

    kind: Kind
    value: Value
    origin: Origin
    hours: float | None = None  # since the record's anchor time; None = unknown
    unit: str | None = None  # "HU", "mV", "mmol/L"
    affine: NDArray[np.float64] | None = None  # (4, 4) voxel index -> RAS mm
    rate: float | None = None  # Hz
    names: tuple[str, ...] = ()  # of leads, columns or channels, in the order of the value's first axis

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        if self.affine is not None and np.shape(self.affine) != (4, 4):
            raise ValueError(f"affine has shape {np.shape(self.affine)}, wanted (4, 4)")

    @property
    def present(self) -> bool:
        """Whether there is a value."""
        return not isinstance(self.value, Absent)

    def array(self) -> NDArray[Any]:
        """The value as an array; an error where it is text, a blob or absent."""
        if not isinstance(self.value, np.ndarray):
            raise TypeError(f"{self.kind} item {self.origin.key!r} holds {type(self.value).__name__}, not an array")
        return self.value

    def text(self) -> str:
        """The value as text; an error where it is anything else."""
        if not isinstance(self.value, str) or isinstance(self.value, Absent):
            raise TypeError(f"{self.kind} item {self.origin.key!r} holds {type(self.value).__name__}, not text")
        return self.value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Item):
            return NotImplemented
        return _plain(self) == _plain(other)

    __hash__ = None  # type: ignore[assignment]


def _bits(value: Any) -> Any:
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def _plain(item: Item) -> tuple[Any, ...]:
    return (
        item.kind, type(item.value), _bits(item.value), item.origin, item.hours, item.unit,
        _bits(item.affine), item.rate, item.names,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A part of an item.

    `role` and `index` say which item; `data` by shape: box (x0, y0, x1, y1) pixels, polygon (N, 2), point (2,) or (3,),
    mask the item's own spatial shape (bool or integer labels), time (start, end) in seconds, span (start, end) in
    characters.
    """

    role: str
    shape: Literal["box", "polygon", "mask", "point", "time", "span"]
    data: NDArray[Any]
    label: str
    origin: Origin
    index: int = 0
    text: str | None = None
    score: float | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region):
            return NotImplemented
        same = (self.role, self.shape, self.label, self.origin, self.index, self.text, self.score) == (
            other.role, other.shape, other.label, other.origin, other.index, other.text, other.score
        )  # fmt: skip
        return same and _bits(self.data) == _bits(other.data)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Link:
    """A relation to another record: "same_subject", "similar", "cites", "context_of", "derived_from"."""

    rel: str
    to: str
    grade: float | None = None


@dataclass(frozen=True, slots=True)
class Rights:
    """What may be done with a record. `share` says what an export may carry; `consent` "" = none recorded."""

    licence: str = ""
    access: Literal["open", "credentialed", "restricted"] = "open"
    share: Literal["full", "ids_only", "none"] = "full"
    consent: str = ""
    attribution: str = ""


_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to learn from. `subject` (patient, page, article, video) is never in two splits.

    Well-known groups: "modality" ("xray", "ct", "mr", "ultrasound", "pathology", "fundus", "ecg" ...), "study", "site",
    "scanner", "source", "view". Labels are floats (0/1 for findings) or `Absent`; a label not listed is unknown.

    >>> o = Origin("demo", "a.txt", "", "CC0-1.0")
    >>> r = Record("r1", "p1", items={"report": (Item("text", "No effusion.", o),)})
    >>> r.first("report").text(), r.first("image") is None
    ('No effusion.', True)
    """

    id: str
    subject: str
    groups: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    items: Mapping[str, tuple[Item, ...]] = field(default_factory=lambda: _EMPTY)
    regions: tuple[Region, ...] = ()
    labels: Mapping[str, float | Absent] = field(default_factory=lambda: _EMPTY)
    links: tuple[Link, ...] = ()
    rights: Rights = Rights()
    split: Split | None = None  # None = not yet assigned

    def first(self, *roles: str) -> Item | None:
        """The first present item whose role is one of `roles` or lies under it ("image" takes "image/frontal")."""
        for item in self.all(*roles):
            return item
        return None

    def all(self, *roles: str) -> Iterator[Item]:
        """The present items of `roles`, in the order asked for."""
        for want in roles:
            for role, items in self.items.items():
                if role == want or role.startswith(want + "/"):
                    for item in items:
                        if not isinstance(item.value, Absent):  # as `present`, which a loop over all of them would feel
                            yield item

    def without(self, *roles: str) -> Record:
        """The same record without the items of `roles`."""
        return replace(self, items={r: i for r, i in self.items.items() if r not in roles})

    def updated(self, **changes: Any) -> Record:
        """A copy with fields replaced (`dataclasses.replace`)."""
        return replace(self, **changes)


def record_id(*parts: str) -> str:
    """A stable 24-hex-digit id of the parts (source, key, content hash)."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


# ---------------------------------------------------------------- tensors


@dataclass(frozen=True, slots=True)
class Field:
    """One role of a batch, N items a record.

    `values` (B, N, *shape); `valid` (B, N) bool: which items are real; `hours` (B, N) or None; `mask` (B, N, L) bool
    for token sequences: which positions are real.
    """

    values: Tensor
    valid: Tensor
    hours: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a model reads. `fields` by name; `targets` by name, (B, ...) with NaN nowhere: a float target comes with
    `known` (B, ...) bool of the same name; `keys` (B,) int64 hashes by name ("subject", "text", "label") that say which
    rows are the same thing."""

    ids: tuple[str, ...]
    fields: Mapping[str, Field]
    targets: Mapping[str, Tensor] = field(default_factory=lambda: _EMPTY)
    known: Mapping[str, Tensor] = field(default_factory=lambda: _EMPTY)
    keys: Mapping[str, Tensor] = field(default_factory=lambda: _EMPTY)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Features:
    """What an encoder gives: `pooled` (B, D); `tokens` (B, L, D) or None; `mask` (B, L) bool or None; `grid`: the
    (h, w) of image tokens after `prefix` leading ones (class token, registers)."""

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    grid: tuple[int, int] | None = None
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """`total` () to differentiate; `terms` by name for the log; `count` rows that contributed, 0 = skip this step."""

    total: Tensor
    terms: Mapping[str, float]
    count: int


@runtime_checkable
class Encoder(Protocol):
    """Field -> Features. Normalises nothing; absent items (valid = False) change nothing."""

    def __call__(self, field: Field, /) -> Features: ...


@runtime_checkable
class Objective(Protocol):
    """A loss over a model and a batch; `reads` names the batch's fields, targets and keys it needs, checked first."""

    reads: tuple[str, ...]

    def __call__(self, model: nn.Module, batch: Batch, /) -> Loss: ...


@runtime_checkable
class Contrastive(Objective, Protocol):
    """An objective that splits in two, so that the step can encode in chunks (gradient cache) and gather over
    processes: `fields` names what to embed; `loss` reads embeddings name -> (B, d), presence name -> (B,) bool, keys
    name -> (B,) int64, all of the joint batch, and a generator that is equal on every process."""

    fields: tuple[str, ...]

    def loss(
        self, model: nn.Module, embeddings: Mapping[str, Tensor], presence: Mapping[str, Tensor],
        keys: Mapping[str, Tensor], generator: Generator,
    ) -> Loss: ...  # fmt: skip


# ---------------------------------------------------------------- curation and sources

Drop = Callable[[Record, str], None]  # (record, reason code): counted, written to the ledger


@runtime_checkable
class Step(Protocol):
    """A generator over records; what it leaves out it gives to `drop` with a reason code."""

    name: str
    version: str

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a survey says of one record: a reason to drop it, or groups to add, or a split."""

    drop: str | None = None
    groups: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    split: Split | None = None


@runtime_checkable
class Survey(Protocol):
    """A step that must see everything before it decides anything: duplicates, splits, quotas.

    `note` keeps a small row a record (hashes, keys), `decide` reads all rows in order of id and answers by id; records
    it does not name pass unchanged."""

    name: str
    version: str

    def note(self, record: Record, /) -> Mapping[str, Any]: ...

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> Mapping[str, Decision]: ...


@runtime_checkable
class Embedder(Protocol):
    """Texts or images -> (n, d) float32 unit rows. Reaches `curate` and `evaluate` as an argument."""

    @property
    def name(self) -> str: ...

    def __call__(self, items: Sequence[Item], /) -> NDArray[np.float32]: ...


# ---------------------------------------------------------------- model ports (they arrive as arguments)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `parts` in order: text, or an item (an image), or a region of the item before it."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Item | Region, ...]

    @property
    def text(self) -> str:
        """The text parts, joined by line breaks."""
        return "\n".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Reply:
    """What a chat model answered. `logprobs`: (token, log-probability) of the answer where the backend has them."""

    text: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    logprobs: tuple[tuple[str, float], ...] | None = None


@runtime_checkable
class ChatModel(Protocol):
    """Messages -> text. `schema`: a JSON schema the text must obey; `name`: model and version (part of cache keys)."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, messages: Sequence[Message], /, *, schema: Mapping[str, Any] | None = None, max_tokens: int = 256,
        temperature: float = 0.0, seed: int = 0,
    ) -> Reply: ...  # fmt: skip


@runtime_checkable
class Segmenter(Protocol):
    """Item and prompts (boxes, points, or a region with `text` alone) -> one mask region a prompt that was found."""

    @property
    def name(self) -> str: ...

    def __call__(self, item: Item, prompts: Sequence[Region], /) -> tuple[Region, ...]: ...


@runtime_checkable
class Scorer(Protocol):
    """Record -> numbers by name; NaN never: a score that cannot be given is left out. Deciding is a selector's work."""

    @property
    def name(self) -> str: ...

    def __call__(self, record: Record, /) -> Mapping[str, float]: ...


@runtime_checkable
class Transcriber(Protocol):
    """Audio or video item -> words in order as time regions (seconds), `text` the word, `score` its confidence."""

    @property
    def name(self) -> str: ...

    def __call__(self, item: Item, /) -> tuple[Region, ...]: ...


@dataclass(frozen=True, slots=True)
class Grade:
    """A judge's word: `score` in [0, 1] and why."""

    score: float
    why: str


@runtime_checkable
class Judge(Protocol):
    """Grades an answer against a reference and a rubric."""

    @property
    def name(self) -> str: ...

    def __call__(self, question: str, answer: str, reference: str, /, *, rubric: str = "") -> Grade: ...


# ---------------------------------------------------------------- learning


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast. `lr` is the peak of a linear warm-up followed by a cosine to `final` x lr.

    `lr_scale` multiplies the rate of parameters whose name starts with a prefix (0 freezes: no gradient, no decay).
      `chunk` > 0 encodes a batch in chunks by gradient cache.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 1.0
    final: float = 0.0
    lr_scale: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    chunk: int = 0
    precision: Literal["no", "bf16"] = "no"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training: what it learns from, how records become tensors, what is minimised, for how long.

    `where` is a filter on the corpus (SQL); `needs` names fields of the collate without which a record teaches nothing
    here (both of a pair), so that a batch is full of rows that count; `collate(records, epoch)` makes the batch;
    `objectives` by name, summed with `coefficients` (default 1).
    """

    name: str
    collate: Callable[[Sequence[Record], int], Batch]
    objectives: Mapping[str, Objective]
    schedule: Schedule
    where: str = "split = 'train'"
    needs: tuple[str, ...] = ()
    mix_by: str | None = None  # group whose values are sources to mix, for instance "source"
    mix_temperature: float = 1.0  # weights n^(1/temperature)
    coefficients: Mapping[str, float] = field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True, slots=True)
class System:
    """One published system as this library builds it. A module `systems/<name>.py` holds one as `SYSTEM`.

    `settings` maps a preset name ("paper", "small", "tiny") to its documented settings dataclass; `build(settings,
    records)` makes the model bundle (vocabulary and column statistics come from `records`, the training part);
    `stages(settings, bundle)` the stages; `reads` the kinds it takes, any subset of which may be present.
    """

    seed: str  # "S84"
    title: str
    paper: str
    claim: str
    departs: str  # where this differs from the paper, and why
    reads: Mapping[str, tuple[str, ...]]  # field name -> roles
    settings: Mapping[str, Any]
    build: Callable[[Any, Iterable[Record]], Any]
    stages: Callable[[Any, Any], tuple[Stage, ...]]
    tasks: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    plan: Callable[[Any], Sequence[Step | Survey]] | None = None  # settings -> how its data set is made (`curate.run`)
    answer: Callable[[Any], Callable[..., Any]] | None = None  # settings -> strategy: (ChatModel, question) -> answer


# ---------------------------------------------------------------- evidence


@runtime_checkable
class Metric(Protocol):
    """A pure function of columns -> a number. Intervals come from one shared bootstrap by subject."""

    def __call__(self, columns: Mapping[str, NDArray[Any]], /) -> float: ...


@dataclass(frozen=True, slots=True)
class Score:
    """One number on a card: a metric of `n` rows of `subjects` subjects with its 95 % interval by subject."""

    task: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    subjects: int
    version: str  # of the task
    split_hash: str
    prompt_version: str = ""
    group: str = ""  # modality or data set
    arm: str = "model"  # or the trivial baseline's name
    data: Literal["real", "phantom", "mixed"] = "real"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """One bar of a proof: `effect` with its 95 % paired interval against `bar`, fixed before the run."""

    name: str
    bar: str
    effect: float
    interval: tuple[float, float]
    shown: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """A paper's headline claim as an experiment: values per arm and seed, claims with bars, controls, cost."""

    name: str
    claim: str
    data: str  # says phantom or real
    metric: str
    arms: Mapping[str, tuple[float, ...]]
    claims: tuple[Claim, ...]
    controls: tuple[Claim, ...]
    seeds: tuple[int, ...]
    seconds: float
    notes: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)

    @property
    def verdict(self) -> str:
        """ "shown" only if every claim and every control holds."""
        return "shown" if all(c.shown for c in (*self.claims, *self.controls)) else "not shown"
