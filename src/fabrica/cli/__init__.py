"""The command line: one file a verb. Verb modules import the heavy rooms inside their functions."""

from __future__ import annotations

import errno
import json
import sys

import typer

from fabrica.cli import curate, demo, doctor, evaluate, fetch, ingest, prove, show, systems, train
from fabrica.errors import FabricaError, Full

app = typer.Typer(
    help="Medical files in, one aligned corpus, models trained on it, evidence out. On premises.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb, _module in {
    "demo": demo, "ingest": ingest, "curate": curate, "train": train, "evaluate": evaluate, "prove": prove,
    "fetch": fetch, "systems": systems, "show": show, "doctor": doctor,
}.items():  # fmt: skip
    app.command(_verb)(getattr(_module, _verb))
app.command("run")(demo.run)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from fabrica import __version__

        typer.echo(f"fabrica {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; what a user can mend is printed as one message with an exit code that says which kind."""
    try:
        app()
    except FabricaError as error:
        _fail(error.code, str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(Full.code, f"no space left on the device while writing {error.filename or 'a file'}", Full.exit_code)
        if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError | IsADirectoryError):
            _fail("path", f"{error.strerror}: {error.filename}; check the path and its permissions", 2)
        raise


def _fail(code: str, message: str, exit_code: int) -> None:
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": code, "message": message}))
    typer.echo(f"error: {message}", err=True)
    raise SystemExit(exit_code)
