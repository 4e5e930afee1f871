"""Steps that say when they load and what they see; run as a script: curate SOURCE into INTO on RUNNER."""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fabrica.errors import UsageError
from fabrica.types import Drop, Record, record_id

ODD = record_id("r", "1235")


class HoldsModel:
    """Loads something on first use; `folder` gets a file a load and one a unit."""

    name, version = "holds_model", "1"

    def __init__(self, folder: str, pause: float, wrong: str) -> None:
        self.folder, self.pause, self.wrong = folder, pause, wrong
        self.model: object = None

    def params(self) -> dict[str, str]:
        return {}

    def _say(self, what: str) -> None:
        (Path(self.folder) / f"{what}-{os.getpid()}-{uuid.uuid4().hex}").touch()

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        if self.model is None:
            self._say("load")
            self.model = object()
        time.sleep(self.pause)
        for record in records:
            if record.id == ODD:
                raise ValueError(f"cannot read {record.id}")
            if self.wrong:
                raise UsageError(self.wrong)
            yield record.updated(groups={**record.groups, "seen": record.subject[::-1]})
        self._say("unit")


@dataclass
class Breaks:
    name: str = field(default="breaks", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        for record in records:
            yield {}[record.id]


def plan(folder: str, pause: float = 0.0, wrong: str = "") -> list:
    from fabrica.curate.duplicates.dedup import ImageDuplicates, TextDuplicates
    from fabrica.curate.quality import MinimumSize, MissingText
    from fabrica.curate.series import StackSeries
    from fabrica.curate.split import BySubject

    return [
        StackSeries(), MissingText(), HoldsModel(folder, pause, wrong), TextDuplicates(act="group"), MinimumSize(),
        ImageDuplicates(), BySubject(salt="s"),
    ]  # fmt: skip


def main() -> None:
    from fabrica import curate
    from fabrica.corpus import Corpus

    source, into, runner, folder, pause, what = sys.argv[1:]
    given = [Breaks()] if what == "breaks" else plan(folder, float(pause), what)
    report = curate.run(given, Corpus.open(source), into, runner=runner, max_memory=48 << 20)  # type: ignore[arg-type]
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    from cluster_steps import main as named  # so that workers find the classes by module

    named()
