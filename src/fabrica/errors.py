"""Errors that say what came, what was wanted and what to do. Imports nothing heavy."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class FabricaError(Exception):
    """Anything that a user can mend. The message is one line for the terminal; `code` is for machines."""

    code = "error"
    exit_code = 1


class UsageError(FabricaError):
    """A wrong path, name, option or config."""

    code = "usage"
    exit_code = 2


class Refused(FabricaError):
    """Bytes from outside that will not be read, with a reason code ("array_too_large", "xml_entity" ...)."""

    exit_code = 3

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code


class MissingExtra(FabricaError):
    """A library that is not installed."""

    code = "missing_extra"
    exit_code = 4


class Leak(FabricaError):
    """Train and test share a subject, pixels or text."""

    code = "leak"
    exit_code = 5


class StepFailed(FabricaError):
    """A step raised on more records than were allowed to be left out for it."""

    code = "step_failed"


class Full(FabricaError):
    """No space left on the device; nothing partial was kept."""

    code = "disk_full"
    exit_code = 6


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for an unknown name that offers the nearest known one.

    >>> str(unknown("system", "convrit", ["convirt", "symile"]))
    "no system 'convrit'; did you mean 'convirt'? Known: convirt, symile"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UsageError(f"no {what} {name!r}{hint} Known: {', '.join(names) or 'none'}")


EXTRAS: dict[str, tuple[str, ...]] = {  # extra -> the modules that it brings
    "train": (
        "torch",
        "transformers",
        "accelerate",
        "peft",
        "huggingface_hub",
        "tokenizers",
        "gguf",
        "torchsurv",
        "trl",
    ),
    "evaluate": ("sklearn",),
    "imaging": ("imagecodecs", "tifffile", "openslide"),
    "signal": ("wfdb",),
    "views": ("datasets", "mlcroissant"),
    "demo": ("skimage",),
    "chat": ("openai", "jsonschema"),
    "web": ("httpx",),
    "ocr": ("rapidocr", "onnxruntime"),
    "scale": ("daft", "daft_lance", "ray"),
    "retrieve": ("bm25s",),
    "serve": ("fastapi", "uvicorn"),
    "dense": ("monai", "einops", "diffusers"),
}


def need(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise _missing(module, extra) from error


def missing(error: ModuleNotFoundError) -> MissingExtra | None:
    """The error that names the extra of a library whose import failed; None where no extra brings it.

    >>> str(missing(ModuleNotFoundError("No module named 'torch'", name="torch.nn")))
    "this needs 'torch', which is not installed: pip install 'fabrica[train]'"
    """
    module = (error.name or "").split(".")[0]
    return next((_missing(module, extra) for extra, modules in EXTRAS.items() if module in modules), None)


def _missing(module: str, extra: str) -> MissingExtra:
    return MissingExtra(f"this needs {module!r}, which is not installed: pip install 'fabrica[{extra}]'")
