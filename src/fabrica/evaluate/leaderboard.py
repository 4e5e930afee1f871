"""A leaderboard of data sets: rows are comparable only where the frozen recipe is the same, and others are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fabrica.errors import Refused, UsageError, unknown
from fabrica.safe import write_whole

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One submission (Gadre et al. 2023, appendix on submissions): a data set, what was trained on it, its scores.

    `recipe` is the hash of the training that was really run, `samples_seen` its log's counter. `subset` is the sha256
    of the subset file ("" for own data), `size` its uids; `removed` is how many records decontamination took out (None:
    it was not run). `scores` task -> the task's main metric in [0, 1], a mean over `seeds`.
    """

    name: str
    scale: str
    track: str
    recipe: str
    samples_seen: int
    pool: str
    size: int
    scores: Mapping[str, float]
    seeds: tuple[int, ...] = (0,)
    subset: str = ""
    removed: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes rows comparable: recipe hash and samples seen by scale, and the tasks whose mean is the score."""

    recipes: Mapping[str, str]
    samples: Mapping[str, int]
    tasks: tuple[str, ...]
    tracks: tuple[str, ...] = ("filtering", "byod")


class Leaderboard:
    """Entries in a JSON Lines file, checked against `rules` when they come and when they are read.

    >>> import tempfile
    >>> rules = Rules({"nano": "abc"}, {"nano": 20_000}, ("zero_shot",))
    >>> board = Leaderboard(Path(tempfile.mkdtemp()) / "board.jsonl", rules)
    >>> board.submit(Entry("top 30 %", "nano", "filtering", "abc", 20_000, "p", 6_000, {"zero_shot": 0.4}))
    1
    >>> board.submit(Entry("higher rate", "nano", "filtering", "xyz", 20_000, "p", 6_000, {"zero_shot": 0.5}))
    Traceback (most recent call last):
    fabrica.errors.Refused: 'higher rate': its recipe xyz is not the frozen one of scale nano (abc) [recipe_changed]
    """

    def __init__(self, path: str | Path, rules: Rules) -> None:
        self.path, self.rules = Path(path), rules

    def submit(self, entry: Entry) -> int:
        """Add an entry; how many there are now. `Refused` where it is not comparable (`recipe_changed`,
        `samples_seen`, `tasks_missing`, `score_range`, `not_decontaminated`, `entry_exists`)."""
        self._check(entry)
        held = self.entries()
        if any((e.name, e.scale, e.track) == (entry.name, entry.scale, entry.track) for e in held):
            raise Refused(
                "entry_exists", f"{entry.name!r} is on the board of {entry.scale}, {entry.track}; name it anew"
            )
        lines = [json.dumps({"format": FORMAT, **asdict(e)}, sort_keys=True, allow_nan=False) for e in (*held, entry)]
        with write_whole(self.path) as out:
            out.write(("\n".join(lines) + "\n").encode())
        return len(held) + 1

    def _check(self, entry: Entry) -> None:
        rules, who = self.rules, repr(entry.name)
        if entry.scale not in rules.recipes:
            raise unknown("scale", entry.scale, rules.recipes)
        if entry.track not in rules.tracks:
            raise unknown("track", entry.track, rules.tracks)
        frozen = rules.recipes[entry.scale]
        if entry.recipe != frozen:
            raise Refused(
                "recipe_changed",
                f"{who}: its recipe {entry.recipe} is not the frozen one of scale {entry.scale} ({frozen})",
            )
        if entry.samples_seen != rules.samples[entry.scale]:
            raise Refused(
                "samples_seen",
                f"{who} saw {entry.samples_seen:,} samples; scale {entry.scale} is {rules.samples[entry.scale]:,}",
            )
        if missing := [t for t in rules.tasks if t not in entry.scores]:
            raise Refused("tasks_missing", f"{who} has no score of {', '.join(missing)}; every task counts")
        if wrong := {t: v for t, v in entry.scores.items() if not (math.isfinite(v) and 0 <= v <= 1)}:
            raise Refused("score_range", f"{who}: scores {wrong} are not within 0 and 1")
        if entry.track == "byod" and entry.removed is None:
            raise Refused(
                "not_decontaminated", f"{who} brings its own data; run Decontaminate and report how many it removed"
            )

    def entries(self) -> list[Entry]:
        """All entries, as they came; `UsageError` for a line that is none, `Refused` for one that is not comparable."""
        if not self.path.exists():
            return []
        made = []
        for number, line in enumerate(self.path.read_text("utf-8").splitlines(), 1):
            try:
                data = json.loads(line)
                if data.pop("format") != FORMAT:
                    raise ValueError("another format")
                entry = Entry(**{**data, "seeds": tuple(data["seeds"])})
            except (ValueError, TypeError, KeyError) as error:
                raise UsageError(f"{self.path.name}, line {number} is no entry of a leaderboard: {error}") from error
            self._check(entry)
            made.append(entry)
        return made

    def score(self, entry: Entry) -> float:
        """The main score: the mean over the tasks of the rules (38 in the paper)."""
        return sum(entry.scores[t] for t in self.rules.tasks) / len(self.rules.tasks)

    def table(self, scale: str, track: str) -> list[tuple[int, float, Entry]]:
        """(rank, score, entry), best first; equal scores share a rank."""
        rows = sorted(
            ((self.score(e), e) for e in self.entries() if (e.scale, e.track) == (scale, track)),
            key=lambda row: (-row[0], row[1].name),
        )
        return [(1 + sum(s > score for s, _ in rows), score, entry) for score, entry in rows]

    def markdown(self, scale: str, track: str) -> str:
        """The table as a page."""
        rows = self.table(scale, track)
        head: Sequence[str] = ("rank", "data set", "samples", "removed", "score", *self.rules.tasks)
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for rank, score, e in rows:
            cells = [str(rank), e.name, f"{e.size:,}", "" if e.removed is None else str(e.removed), f"{score:.3f}"]
            lines.append(f"| {' | '.join([*cells, *(f'{e.scores[t]:.3f}' for t in self.rules.tasks)])} |")
        return "\n".join(lines) + "\n"
