"""A folder that is replaced is there at every moment, the old one or the new one."""

import sys
import threading
from pathlib import Path

import pytest

from fabrica.safe import folder_whole, whole


def replaced(path: Path, text: str) -> None:
    with folder_whole(path, replace=True) as made:
        (made / "a").write_text(text)
        (made / "b").write_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_a_replaced_folder_is_never_missing(tmp_path: Path) -> None:
    path, over, missing = tmp_path / "d", threading.Event(), []
    replaced(path, "0")

    def watch() -> None:
        while not over.is_set():
            if not path.exists():
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(1, 60):
        replaced(path, str(i))
    over.set()
    watcher.join()
    assert not missing
    assert (path / "a").read_text() == (path / "b").read_text() == "59"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_where_the_system_cannot_exchange_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "_exchanged", lambda a, b: False)
    for text in "12":
        replaced(tmp_path / "d", text)
    assert (tmp_path / "d" / "b").read_text() == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
