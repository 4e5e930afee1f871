"""The command line: one file a verb. Verb modules import the heavy rooms inside their functions."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable

import typer

from fabrica.cli import (
    bench,
    card,
    curate,
    deid,
    demo,
    diff,
    doctor,
    evaluate,
    fetch,
    ingest,
    inspect,
    prove,
    rights,
    serve,
    show,
    systems,
    train,
)
from fabrica.errors import FabricaError, Full, missing

EXIT_CODES = """Exit codes:

\b
  0    done
  1    a fault of fabrica's own (please report it), or what no code below names
  2    wrong use: a path, name, option or job file that cannot be followed
  3    refused: bytes or a name that may not be read
  4    a library is missing: the message names the extra that brings it
  5    leak: train and test share a subject, pixels or text
  6    no space left on the device; nothing partial was kept
  130  interrupted: the same command goes on where it was
"""

app = typer.Typer(
    help="Medical files in, one aligned corpus, models trained on it, evidence out. On premises.\n\n"
    "Example: fabrica demo --fetch --out demo",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_VERBS: dict[str, Callable[..., None]] = {
    "demo": demo.demo, "run": demo.run, "ingest": ingest.ingest, "curate": curate.curate, "deid": deid.deid,
    "train": train.train,
    "evaluate": evaluate.evaluate, "bench": bench.bench, "prove": prove.prove, "fetch": fetch.fetch,
    "systems": systems.systems, "show": show.show, "rights": rights.rights, "card": card.card, "diff": diff.diff,
    "inspect": inspect.inspect, "serve": serve.serve, "doctor": doctor.doctor,
}  # fmt: skip
for _verb, _function in _VERBS.items():
    app.command(_verb)(_function)

_ClickException: type[Exception] = typer.BadParameter.__mro__[2]  # what every error of options and arguments is
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PATH_ERRORS = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from fabrica import __version__

        typer.echo(f"fabrica {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; what a user can mend is printed as one message with an exit code that says which kind."""
    try:
        code = app(standalone_mode=False)  # typer turns an interrupt into the code 130
        if code == 130:
            raise KeyboardInterrupt
    except _ClickException as error:
        _bad_option(error)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", "interrupted; the same command goes on where it was", 130)
    except FabricaError as error:
        _fail(error.code, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        known = missing(error)
        if known is None:
            raise
        _fail(known.code, str(known), known.exit_code)
    except OSError as error:
        _system(error)
    else:
        raise SystemExit(code if isinstance(code, int) else 0)


def _bad_option(error: Exception) -> None:
    """A wrong option, argument or verb: the message and where help is; the help itself where nothing was asked."""
    context, message = getattr(error, "ctx", None), str(getattr(error, "format_message", error.__str__)())
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message)
        raise SystemExit(0)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    _fail("usage", f"{message.rstrip('.')}{hint}", 2)


def _system(error: OSError) -> None:
    if error.errno == errno.EPIPE:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)
    if error.errno in _FULL or any(f"(os error {n})" in str(error) for n in _FULL):
        where = f"to write {error.filename}" if error.filename else "on the device"
        _fail(Full.code, f"no space left {where}; free some and run the same command again", Full.exit_code)
    if isinstance(error, _PATH_ERRORS):
        _fail("path", f"{error.strerror}: {error.filename}; check the path and its permissions", 2)
    raise error


def _fail(code: str, message: str, exit_code: int) -> None:
    """One message on stderr; with --json an object on stdout as well."""
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": code, "message": message, "exit_code": exit_code}, ensure_ascii=False))
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(exit_code)
