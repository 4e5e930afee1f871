"""Events to tables: order of time, window, what was never measured, what stays."""

from __future__ import annotations

import numpy as np
import pytest

from fabrica.curate.summarise import Summarise
from fabrica.errors import UsageError
from fabrica.types import Absent, Item, Origin, Record

ORIGIN = Origin("demo", "stay", "", "CC0-1.0", "synthetic")


def series(hours: float | None, **values: float) -> Item:
    return Item("series", np.array(list(values.values())), ORIGIN, hours, names=tuple(values))


RECORD = Record("r", "p", items={"events": (
    series(30.0, HR=100), series(None, Age=50), series(2.0, HR=80, K=4.0), series(50.0, HR=300), series(1.0, HR=60),
)})  # fmt: skip


def one(step: Summarise, record: Record = RECORD) -> Record:
    (made,) = step([record], lambda r, why: pytest.fail("nothing is dropped"))
    return made


def told(record: Record, role: str) -> dict[str, float]:
    (item,) = record.items[role]
    return dict(zip(item.names, item.array().tolist(), strict=True))


def test_values_are_taken_in_order_of_time_within_the_window() -> None:
    made = one(
        Summarise(fields={"v": ("HR", "Age", "Na"), "labs": ("K",)}, statistics=("mean", "last", "first", "count"))
    )
    assert told(made, "v") == {
        "HR.mean": 80, "HR.last": 100, "HR.first": 60, "HR.count": 3,
        "Age.mean": 50, "Age.last": 50, "Age.first": 50, "Age.count": 1,
    }  # fmt: skip
    assert told(made, "labs")["K.last"] == 4
    assert made.items["v"][0].origin.steps == ("summarise 0-48 h",)
    assert made.items["events"] == RECORD.items["events"]


def test_a_field_of_which_nothing_was_measured_is_absent() -> None:
    made = one(Summarise(fields={"gases": ("pH",), "v": ("HR",)}, stop=0.5, keep=False))
    assert made.items["gases"][0].value is Absent.NOT_DONE
    assert made.items["v"][0].value is Absent.NOT_DONE
    assert "events" not in made.items


def test_a_record_without_events_has_absent_fields() -> None:
    made = one(Summarise(fields={"v": ("HR",)}), Record("r", "p"))
    assert made.items["v"][0].value is Absent.NOT_DONE


def test_wrong_settings_are_errors() -> None:
    with pytest.raises(UsageError, match="no statistic 'median'"):
        Summarise(fields={"v": ("HR",)}, statistics=("median",))
    with pytest.raises(UsageError, match="'events' is the role"):
        Summarise(fields={"events": ("HR",)})
    with pytest.raises(UsageError, match="start < stop"):
        Summarise(fields={"v": ("HR",)}, stop=0.0)
