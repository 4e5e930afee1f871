"""Run every benchmark, one after the other, and write docs/performance.md: `python benchmarks/table.py [NAME ...]`.

Results are kept in benchmarks/results/NAME.json; naming some runs those alone and keeps the others' rows.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
NAMES = sorted(p.stem for p in HERE.glob("*.py") if p.stem != "table")
HEADER = """# Performance

Measured by `make bench`: each script in `benchmarks/` runs ours and the peer alternately in one process, on the same
inputs, and reports medians. The ratio is peer / ours for times and ours / peer for rates: above 1 means that ours is
faster (or smaller). The roof is what the machine could do at best for the same bytes. Rows below 1 lose, and stay here.
"""


def run(name: str) -> dict[str, Any]:
    """The JSON that one script prints, with what it ran on."""
    command = [sys.executable, str(HERE / f"{name}.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    data: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    data["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}"
    return data


def number(value: Any) -> str:
    """Three significant digits."""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, (int, float))
        else str(value)
    )


def page() -> str:
    """All stored rows as Markdown."""
    lines = [HEADER]
    for path in sorted(RESULTS.glob("*.json")):
        data = json.loads(path.read_text("utf-8"))
        lines += [f"\n## {path.stem}\n", f"`python benchmarks/{path.stem}.py` on {data['machine']}\n"]
        lines += ["| job | ours | peer | unit | ratio | roof | n |", "|---|---|---|---|---|---|---|"]
        for r in data["rows"]:
            ratio = f"**{r['ratio']:.2f}**" if r["ratio"] >= 1 else f"{r['ratio']:.2f} (loses)"
            cells = (
                r["job"],
                number(r["ours"]),
                f"{number(r['peer'])} ({r['peer_name']})",
                r["unit"],
                ratio,
                number(r["roof"]),
                number(r["n"]),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, store, write the page."""
    RESULTS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or NAMES:
        print(f"{name} ...", file=sys.stderr)
        (RESULTS / f"{name}.json").write_text(json.dumps(run(name), indent=1) + "\n", "utf-8")
    (HERE.parent / "docs" / "performance.md").write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
