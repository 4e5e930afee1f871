"""`fabrica bench QUESTIONS --model M --strategy S`: multiple-choice questions of a file, asked of a chat model."""

from __future__ import annotations

import json as plain
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabrica.cli._show import Few, Json, emit, folder_for, progress, table

if TYPE_CHECKING:
    from fabrica.chat.answer import Answer
    from fabrica.evaluate.bench import Bench
    from fabrica.types import ChatModel

STRATEGIES = ("direct", "chain_of_thought", "self_consistency", "ensemble_refinement", "option_likelihood")


def bench(
    questions: Annotated[Path, typer.Argument(help="JSON lines (question, options, answer_idx), or PubMedQA's JSON.")],
    model: Annotated[
        str,
        typer.Option("--model", help="Catalogue name, folder or hub id; http(s)://HOST/v1#NAME; or recorded:FILE."),
    ] = "smollm2-135m",
    strategy: Annotated[
        str, typer.Option("--strategy", help=f"{', '.join(STRATEGIES)}, or a system that answers questions.")
    ] = "option_likelihood",
    by: Annotated[str, typer.Option("--by", help="What option_likelihood ranks: letter or text.")] = "letter",
    context: Annotated[bool, typer.Option("--context", help="Refuse questions without a context.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for rows, card and kept replies.")] = None,
    limit: Few = None,
    allow_network: Annotated[bool, typer.Option("--allow-network", help="Let --model open an address.")] = False,
    key_env: Annotated[str, typer.Option("--key-env", help="Environment variable with an address's key.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Answer two questions, say how long all would take, and leave.")
    ] = False,
    json: Json = False,
) -> None:
    """Ask a chat model multiple-choice questions.

    Accuracy with its interval by subject, beside the best constant letter of these questions. A run with --out goes on
    where it was stopped: replies are kept there.

    Example: fabrica bench mmlu.jsonl --model smollm2-135m --by text --limit 200 --out bench
    """
    from fabrica.evaluate import bench as room

    if out is not None:
        folder_for(out, "--out")
    run = _strategy(strategy, by)
    whole = room.load(questions, context=context).first(limit)
    port = _model(model, allow_network, key_env)
    if dry_run:
        data = _cost(whole, port, run)
        emit(data, as_json=json, text="\n".join(f"{k:<12}{v}" for k, v in data.items()))
        return
    with progress(quiet=json) as bar:
        answers = run(port if out is None else _kept(port, strategy, out), whole, bar)
    found = room.judged(whole, answers)
    card = {
        "version": room.VERSION, "questions": str(questions), "model": port.name, "strategy": strategy, "by": by,
        "n": len(answers), "left_out": dict(whole.left), **found.to_json(),
        "leak": "not checked: what the model was trained on is not at hand",
    }  # fmt: skip
    if out is not None:
        _write(out, card, room.rows(whole, answers))
    emit(card, as_json=json, text=_text(card, found))


def _text(card: dict[str, Any], found: Any) -> str:
    s, a = found.summary, found.accuracy
    shown = (f"{s.accuracy:.3f}", f"[{a.low:.3f}, {a.high:.3f}]", f"{s.macro_f1:.3f}", f"{s.parsed:.2f}")
    head = ("arm", "accuracy", "95 % interval", "macro-F1", "parsed", "calls", "n")
    lines = [(card["strategy"], *shown, f"{s.calls:.1f}", s.n)]
    lines += [(f"always {found.constant}", f"{found.trivial:.3f}", "", "", "", "0.0", s.n)]
    left = ", ".join(f"{n} {code}" for code, n in card["left_out"].items())
    g = found.gain
    said = f"{card['model']} is {found.verdict}: {g.value:+.3f} [{g.low:+.3f}, {g.high:+.3f}], McNemar p {found.p:.3g}"
    return f"{table(head, lines)}\n{said}\nleak: {card['leak']}" + (f"\nleft out: {left}" if left else "")


def _strategy(name: str, by: Any) -> Any:
    """(model, bench, bar) -> answers."""
    from fabrica import systems
    from fabrica.chat import strategies
    from fabrica.chat.likely import likeliest
    from fabrica.errors import UsageError, unknown
    from fabrica.evaluate.choices import answered

    if by not in ("letter", "text"):
        raise unknown("--by", by, ("letter", "text"))
    if name == "option_likelihood":
        return lambda model, bench, bar: likeliest(model, bench.questions, by=(by,), progress=bar)[by]
    if name in STRATEGIES:
        made = getattr(strategies, name)
    elif name in systems.names():
        system = systems.load_system(name)
        if system.answer is None:
            raise UsageError(f"the system {name!r} answers no questions; `fabrica show {name}` says what it does")
        made = system.answer(system.settings["paper"])
    else:
        raise unknown("strategy", name, (*STRATEGIES, *systems.names()))
    return lambda model, bench, bar: answered(model, bench.questions, made, bar)


def _model(name: str, allow_network: bool, key_env: str) -> ChatModel:
    from fabrica.chat import Endpoint, LocalChat, Recorded
    from fabrica.errors import UsageError

    if name.startswith("recorded:"):
        return Recorded(name.removeprefix("recorded:"))
    if re.match(r"https?://", name):
        url, _, served = name.partition("#")
        if not served:
            raise UsageError(f"--model {name!r} names no model: wanted ADDRESS#NAME, as http://localhost:8000/v1#llama")
        return Endpoint(url, served, allow_network=allow_network, key_env=key_env)
    return LocalChat(name, allow_network=allow_network)


def _kept(model: ChatModel, strategy: str, out: Path) -> ChatModel:
    """The model with its replies kept under `out`; log-probabilities are not replies, and local ones cost no money."""
    from fabrica.chat import Cached

    if strategy == "option_likelihood":
        return model
    out.mkdir(parents=True, exist_ok=True)
    return Cached(model, out / "replies.sqlite")


def _cost(bench: Bench, model: ChatModel, run: Any) -> dict[str, Any]:
    """What two questions took, and all would."""
    few = bench.first(2)
    run(model, few.first(1), None)  # loads the model
    start = time.perf_counter()
    answers: list[Answer] = run(model, few, None)
    each = (time.perf_counter() - start) / len(few.questions)
    n, calls = len(bench.questions), sum(a.calls for a in answers) / len(answers)
    return {
        "questions": n, "left_out": dict(bench.left), "model": model.name, "calls": round(n * calls),
        "minutes": round(n * each / 60, 2),
    }  # fmt: skip


def _write(out: Path, card: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from fabrica import safe

    out.mkdir(parents=True, exist_ok=True)
    for name, lines in (("rows.jsonl", rows), ("card.json", [card])):
        with safe.write_whole(out / name) as file:
            file.write("".join(plain.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
