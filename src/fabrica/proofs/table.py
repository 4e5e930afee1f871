"""`docs/proofs.md` from the stored results: `python -m fabrica.proofs.table`. Stale rows are marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fabrica.proofs import fingerprint

HEADER = """# Proofs

Generated from `proofs/*.json` by `python -m fabrica.proofs.table`. Each row is a paper's headline claim run against its
baseline on this library; bars were fixed before the run. `not shown` is a result. Size "quick" means fewer seeds and
smaller arms than the standard run: a sign that the experiment is wired, and no more. "stale" means that the code which
the result depends on has changed since; run `fabrica prove NAME --store proofs` again. Size "full" is the larger
experiment on a GPU (`fabrica prove NAME --full --device cuda --store proofs/full`).
"""


def page(folder: Path) -> str:
    """The whole page as Markdown."""
    results, full = ([json.loads(p.read_text("utf-8")) for p in sorted(f.glob("*.json"))]
                     for f in (folder, folder / "full"))  # fmt: skip
    lines = [
        HEADER,
        "| system | verdict | size | data | metric | seeds | seconds (CPU seconds) | machine | state |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in [*results, *full]:
        state = "current" if r["code"] == fingerprint(r["name"]) else "stale"
        cpu = r["details"].get("cpu_seconds", r["seconds"])
        at = r["name"] + ("-full" if r["size"] == "full" else "")
        lines.append(
            f"| [{r['name']}](#{at}) | **{r['verdict']}** | {r['size']} | {r['data']} | {r['metric']} | "
            f"{len(r['seeds'])} | "
            f"{r['seconds']:.0f} ({cpu:.0f}) | {r['machine']}, {r['device']} | {state} |"
        )
    for r in results:
        caveat = folder / f"{r['name']}.md"  # what a reader should know that the run itself cannot say
        lines += [section(r), *(["\n" + caveat.read_text("utf-8").strip()] if caveat.is_file() else [])]
    for r in full:
        lines.append(section(r))
    return "\n".join(lines) + "\n"


def section(r: dict[str, Any]) -> str:
    """One system: its claim, arms, bars and notes."""
    lines = [
        f"\n## {r['name']}{' full' if r['size'] == 'full' else ''}\n",
        r["claim"] + "\n",
        "| arm | mean | values by seed |",
        "|---|---|---|",
    ]
    for arm, values in r["arms"].items():
        lines.append(f"| {arm} | {sum(values) / len(values):.3f} | {', '.join(f'{v:.3f}' for v in values)} |")
    lines += ["", "| bar | effect | 95 % interval | shown |", "|---|---|---|---|"]
    for kind, claims in (("", r["claims"]), ("control: ", r["control"])):
        for c in claims:
            low, high = c["interval"]
            why = f" ({c['why']})" if c["why"] else ""
            shown = f"{'yes' if c['shown'] else 'no'}{why}"
            lines.append(f"| {kind}{c['name']}: {c['bar']} | {c['effect']:.3f} | [{low:.3f}, {high:.3f}] | {shown} |")
    if r["notes"]:
        lines += ["", r["notes"]]
    if r["details"].get("subsets"):
        lines += ["", *subsets(r["details"]["subsets"])]
    return "\n".join(lines)


def subsets(tables: dict[str, list[list[Any]]]) -> list[str]:
    """What is there at the test, by arm: lines of `details["subsets"]` as `evaluate.subsets.plain` makes them; arms
    that were asked of the same kinds of data stand side by side."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for arm, rows in tables.items():
        groups.setdefault(tuple(row[0] for row in rows), []).append(arm)
    lines: list[str] = []
    for present, arms in groups.items():
        lines += [""] * bool(lines) + [f"| there at the test | {' | '.join(arms)} |", f"|---|{'---|' * len(arms)}"]
        for i, name in enumerate(present):
            cells = (tables[arm][i][1:] for arm in arms)
            lines.append(f"| {name} | {' | '.join(f'{v:.3f} [{low:.3f}, {high:.3f}]' for v, low, high in cells)} |")
    return lines


def main() -> None:
    """Write the page beside the code."""
    root = Path(__file__).resolve().parents[3]
    (root / "docs" / "proofs.md").write_text(page(root / "proofs"), "utf-8")


if __name__ == "__main__":
    main()
