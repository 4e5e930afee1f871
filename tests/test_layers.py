"""Each room imports only rooms before it; heavy libraries stay out of the light paths."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "fabrica"
ORDER = [
    "errors", "types", "safe", "sources", "catalogue", "phantom", "text", "corpus", "curate", "encode", "objectives",
    "models", "train", "chat", "retrieve", "evaluate", "serve", "systems", "proofs", "job", "cli",
]  # fmt: skip
FILES = sorted(SRC.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return parts[0]


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{a.name}" if node.module == "fabrica" else str(node.module) for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("fabrica.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    here = room(path)
    if here in ("__init__", "__main__"):
        return
    late = {n for n in imported(ast.parse(path.read_text())) if n in ORDER and ORDER.index(n) > ORDER.index(here)}
    assert not late, f"{path.relative_to(SRC)} stands before {', '.join(sorted(late))} and may not import it"


def test_no_system_imports_another() -> None:
    for path in (SRC / "systems").glob("[!_]*.py"):
        assert "fabrica.systems" not in path.read_text(), f"{path.name}: what two systems need moves down into a stage"


def test_rooms_are_all_known() -> None:
    assert {room(p) for p in FILES} - {"__init__", "__main__"} <= set(ORDER)


@pytest.mark.parametrize(
    "statement", ["import fabrica", "import fabrica.cli", "import fabrica.systems as s; s.names()"]
)
def test_light_imports_load_nothing_heavy(statement: str) -> None:
    heavy = ("torch", "lance", "pandas", "transformers", "scipy", "numpy" if "cli" in statement else "sklearn")
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_torchvision_is_absent_and_torch_is_the_tested_one() -> None:
    code = "import importlib.util as u, torch; print(u.find_spec('torchvision'), torch.__version__.split('+')[0])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["None", "2.13.0"]
