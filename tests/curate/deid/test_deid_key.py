"""The key: kept from others, never shown, and what it gives is the same everywhere and changes with it."""

import datetime as dt
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.curate.deid.key import LEAST_DAYS, SPAN_DAYS, Key, shifted
from fabrica.errors import Refused, UsageError

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(1, 33)))


def test_a_key_file_is_for_its_owner_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "study.key"
    key = Key.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Key.load(path).pseudonym("subject", "a") == key.pseudonym("subject", "a")
    with pytest.raises(UsageError, match="exists already"):
        Key.create(path)
    path.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        Key.load(path)


@pytest.mark.parametrize("text", ["", "00ff", "not hexadecimal", "é" * 64])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises((Refused, UsageError)):
        Key.load(path)


def test_the_secret_is_not_shown_pickled_or_signed(tmp_path: Path) -> None:
    from fabrica.curate.engine.plan import plain

    path = tmp_path / "study.key"
    key = Key.create(path)
    secret = path.read_text().strip()
    assert secret not in repr(key)
    assert plain(key, "deid") == ["deid_key", key.version]
    assert secret.encode() not in pickle.dumps(key)
    assert bytes.fromhex(secret) not in pickle.dumps(key)
    assert pickle.loads(pickle.dumps(key)).uid("1.2.3") == key.uid("1.2.3")
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(KEY)


@given(st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True))
def test_uids_are_valid_stable_and_depend_on_the_key(uid: str) -> None:
    new = KEY.uid(uid)
    assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", new)
    assert len(new) <= 64
    assert new == KEY.uid(f"{uid}\0")
    assert new != OTHER.uid(uid)


def test_registered_uids_stay_and_look_alikes_do_not() -> None:
    assert KEY.uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"
    assert KEY.uid("1.2.840.100081.5").startswith("2.25.")
    assert KEY.uid("1.2.840.10008.DOE^JANE").startswith("2.25.")


@given(st.text(max_size=40))
def test_shifts_are_whole_days_in_range(subject: str) -> None:
    days = KEY.days(subject)
    assert -LEAST_DAYS - SPAN_DAYS < days <= -LEAST_DAYS
    assert days == KEY.days(subject)


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_parts_are_not_confused(a: str, b: str, c: str) -> None:
    if (a + "\x1f" + b, c) != (a, b + "\x1f" + c):
        assert KEY.mac("x", a + "\x1f" + b, c) != KEY.mac("x", a, b + "\x1f" + c)


def test_a_day_outside_the_calendar_is_none() -> None:
    assert shifted(dt.date(1, 1, 2), -4000) is None
