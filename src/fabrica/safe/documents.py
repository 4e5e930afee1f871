"""XML without entities, checkpoints without pickles, URLs that lead nowhere private."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fabrica.errors import Refused, need
from fabrica.safe.address import resolve
from fabrica.safe.archives import members
from fabrica.safe.limits import LIMITS, Limits, human, open_file, read_bytes

if TYPE_CHECKING:
    from torch import Tensor


def xml(data: bytes | str | Path, limits: Limits = LIMITS) -> Any:
    """Parse XML to an lxml root element. Entities are refused (`xml_entity`), a DOCTYPE is never fetched or applied.

    `Refused("xml_bad")` for what is not well formed or nested deeper than libxml2's own limit (256).

    >>> xml(b"<report><text>clear</text></report>").findtext("text")
    'clear'
    """
    from lxml import etree

    if isinstance(data, Path):
        data = read_bytes(data, limits)
    blob = data.encode() if isinstance(data, str) else bytes(data)
    if len(blob) > limits.array_bytes // 8:
        raise Refused("file_too_large", f"an XML document of {human(len(blob))}; too large")
    marks = ("<!ENTITY".encode(code) for code in ("ascii", "utf-16-le", "utf-16-be"))
    if any(mark in blob for mark in marks):
        raise Refused("xml_entity", "the XML declares entities, which are never expanded")
    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, dtd_validation=False, attribute_defaults=False,
        huge_tree=False, recover=False,
    )  # fmt: skip
    try:
        root = etree.fromstring(blob, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Refused("xml_bad", f"the XML is not well formed: {str(error)[:200]}") from error
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and any(True for _ in dtd.iterentities()):
        raise Refused("xml_entity", "the XML declares entities, which are never expanded")
    return root


_TORCH_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, EOFError, AttributeError, IndexError, OverflowError)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params", "network_weights", "encoder")


def weights(path: str | Path, limits: Limits = LIMITS) -> dict[str, Tensor]:
    """Name -> tensor of a checkpoint: safetensors, or a torch file read with `weights_only=True`.

    A pickle that holds anything but tensors and plain containers is `Refused("pickle")` and nothing of it runs.
    One known wrapper ("state_dict", "model" ...) is unwrapped; entries that are not tensors are left out.
    """
    torch = need("torch", "train")
    with open_file(path, limits) as handle:
        head = handle.read(16)
        size = os.fstat(handle.fileno()).st_size
    if _is_safetensors(head, size):
        load_file = need("safetensors.torch", "train").load_file
        from safetensors import SafetensorError

        try:
            return dict(load_file(str(path)))
        except SafetensorError as error:
            raise Refused("checkpoint_bad", f"{Path(path).name!r} is broken: {error}") from error
    return _torch_weights(torch, Path(path), head, limits)


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") + 8 <= size


def _torch_weights(torch: Any, path: Path, head: bytes, limits: Limits) -> dict[str, Tensor]:
    import pickle  # for its exception class only: nothing is unpickled here

    if head[:2] == b"PK":
        for _ in members(path, limits):  # names, links and ratios before torch allocates
            pass
    elif head[:1] != b"\x80":
        raise Refused("checkpoint_bad", f"{path.name!r} is neither safetensors nor a torch checkpoint")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refused("pickle", f"{path.name!r} holds pickled objects, which are never loaded") from error
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        AttributeError,
        IndexError,
        OverflowError,
    ) as error:
        raise Refused("checkpoint_bad", f"{path.name!r} is a broken checkpoint: {str(error)[:200]}") from error
    if isinstance(found, dict):
        for key in _WRAPPERS:
            if isinstance(found.get(key), dict) and not any(torch.is_tensor(v) for v in found.values()):
                found = found[key]
                break
    tensors = {str(k): v for k, v in found.items() if torch.is_tensor(v)} if isinstance(found, dict) else {}
    if not tensors:
        raise Refused("checkpoint_bad", f"{path.name!r} holds no named tensors")
    return tensors


def check_url(url: str, allow_network: bool = False, *, private: bool = False) -> str:
    """The URL, if it may be fetched: https, no credentials in it, and no private address unless `private`.

    Without `allow_network` everything is `Refused("network_off")`; a host is looked up only after that.
    """
    parts = urlsplit(url)
    if not allow_network:
        raise Refused("network_off", f"{parts.hostname or url[:80]!r} would need the network; pass --allow-network")
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise Refused("url_scheme", f"URL scheme {parts.scheme!r}; wanted https")
    if not parts.hostname or parts.username or parts.password:
        raise Refused("url_host", "the URL names no host, or carries a user name or password")
    if not private:
        resolve(parts.hostname, parts.port or 443)
    return url
