"""The one door for hostile bytes: limits first, archives, XML, checkpoints, URLs, whole-or-absent writes."""

from fabrica.safe.archives import member_name, members, unpack
from fabrica.safe.documents import check_url, weights, xml
from fabrica.safe.limits import LIMITS, MIB, Limits, check_array, inflate, open_file, read_bytes, sha256
from fabrica.safe.member import read_member
from fabrica.safe.whole import folder_whole, write_whole

__all__ = [
    "LIMITS", "MIB", "Limits", "check_array", "check_url", "folder_whole", "inflate", "member_name", "members",
    "open_file", "read_bytes", "read_member", "sha256", "unpack", "weights", "write_whole", "xml",
]  # fmt: skip
