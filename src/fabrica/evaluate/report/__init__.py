"""The evidence report: one HTML file that opens from disk, asks nothing of a network, and says what is absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fabrica.corpus.pages import HERE
from fabrica.errors import UsageError
from fabrica.evaluate import cards
from fabrica.evaluate.report import content, gallery
from fabrica.safe import write_whole
from fabrica.types import Score

__all__ = ["Numbers", "write"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """The first lines of the report."""

    records: int
    subjects: int
    real: int
    phantom: int
    train: int
    test: int


def write(
    path: str | Path, *, corpus: Any, raw: Any = None, curate: Any = None, train_log: str | Path | None = None,
    scores: Sequence[Score] | str | Path = (), bundle: Any = None, title: str = "Evidence report",
    cost: Mapping[str, Mapping[str, float]] | None = None, notes: Sequence[str] = (), pictures: bool = True,
    texts: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write the report as one HTML file, whole, and give its path.

    `corpus` is the curated corpus, `raw` the one before curation; `curate` a `CurateReport` or the folder that curation
    wrote; `train_log` a `train.jsonl`; `scores` the scores, or the folder of an evaluation (then with what could not be
    scored); `bundle` the model, for neighbours, reports and maps; `cost` stage -> {"seconds", "peak_mib", "disk_mib"};
    `texts` are further words to map. `pictures` False leaves out every record's content. Everything but `corpus` may
    be missing: its section says so. Errors: `UsageError` for a folder without cards.
    """
    held, cache = _scores(scores, bundle)
    rows = content.modalities(corpus)
    numbers = Numbers(
        sum(m.total for m in rows), content.subjects_of(corpus), sum(m.real for m in rows),
        sum(m.phantom for m in rows), sum(m.train for m in rows), sum(m.test for m in rows),
    )  # fmt: skip
    names = ["" if m.name == "not said" else m.name for m in rows]
    show = pictures and numbers.records > 0
    known = show and bundle is not None
    page = {
        "title": title,
        "notes": list(dict.fromkeys(notes)),
        "numbers": numbers,
        "modalities": rows,
        "pictures": pictures,
        "samples": gallery.samples(corpus, names) if show else [],
        "dropped": content.dropped(raw, curate),
        "curated": curate is not None,
        "training": content.training(None if train_log is None else Path(train_log)),
        "families": content.families(held.scores, held.unscored),
        "verdict": content.verdict(held.scores),
        "found": gallery.found(corpus, bundle, names, cache=cache) if known and _reads(bundle, "image", "text") else [],
        "maps": gallery.maps(corpus, bundle, texts=texts) if known and _reads(bundle, "image", "text") else [],
        "bundle": bundle is not None,
        "card": _card(bundle),
        "costs": content.costs(cost or {}),
        "disk": _disk(raw, corpus),
        "version": _version(),
        "corpus_version": getattr(corpus, "version", ""),
        "few": cards.FEW,
    }
    body = _render(page)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as out:
        out.write(body.encode("utf-8", "replace"))
    return path


def _scores(scores: Sequence[Score] | str | Path, bundle: Any) -> tuple[cards.Cards, Any]:
    if not isinstance(scores, str | Path):
        return cards.Cards(tuple(scores)), None
    from fabrica.evaluate.features import feature_cache

    folder = Path(scores)
    return cards.read(folder), feature_cache(bundle, folder / "features")


def _reads(bundle: Any, *names: str) -> bool:
    fields: Any = getattr(bundle, "fields", None) or getattr(getattr(bundle, "collate", None), "fields", ())
    return all(n in fields for n in names)


def _card(bundle: Any) -> dict[str, str]:
    """The plain facts of the model's card."""
    facts = dict(getattr(bundle, "card", None) or {})
    shown = {k: v for k, v in facts.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    mark = getattr(bundle, "fingerprint", None)
    return {k: str(v) for k, v in shown.items()} | ({"fingerprint": str(mark)} if isinstance(mark, str) else {})


def _disk(raw: Any, corpus: Any) -> list[tuple[str, float]]:
    sizes = [("records as read", getattr(raw, "path", None)), ("records as curated", getattr(corpus, "path", None))]
    return [(name, mib) for name, path in sizes if (mib := content.folder_mib(path)) is not None]


def _version() -> str:
    try:
        return version("fabrica")
    except PackageNotFoundError:
        return "from source"


def _render(page: Mapping[str, Any]) -> str:
    import jinja2

    folder = Path(__file__).parent
    loader = jinja2.FileSystemLoader(folder)
    try:
        made = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        made.filters.update(
            number=cards.number, count=lambda n: f"{n:,}", time=_time, size=_size, modality=content.modality_name
        )
        return made.get_template("page.html.jinja").render(**page, style=(HERE / "page.css").read_text("utf-8"))
    except jinja2.TemplateNotFound as error:
        raise UsageError(f"the installation lacks {error.name}; reinstall fabrica") from error


def _time(seconds: float | None) -> str:
    """Seconds for people.

    >>> _time(75.2), _time(3.21), _time(None)
    ('1 min 15 s', '3.2 s', 'not measured')
    """
    if seconds is None:
        return "not measured"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _size(mib: float | None) -> str:
    """MiB for people."""
    if mib is None:
        return "not measured"
    return f"{mib / 1024:.2f} GiB" if mib >= 1024 else f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB"
