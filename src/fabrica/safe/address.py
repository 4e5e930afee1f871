"""Which network addresses a fetch may reach: public ones, in the usual spelling, looked up once."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

from fabrica.errors import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], list[str]]  # (host, port) -> addresses as text

_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


def public(address: str | Address) -> bool:
    """Whether an address belongs to the public internet: no private, loopback, link-local (cloud metadata),
    shared, multicast or reserved one, and no IPv6 form that carries such an IPv4 address.

    >>> public("8.8.8.8"), public("169.254.169.254"), public("::ffff:10.0.0.1"), public("64:ff9b::7f00:1")
    (True, False, False, False)
    """
    ip = ipaddress.ip_address(address.split("%")[0]) if isinstance(address, str) else address
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _carried(ip)
        if inner is not None:
            return all(public(v4) for v4 in inner)
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_link_local or ip.is_unspecified)


def _carried(ip: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...] | None:
    """The IPv4 addresses inside an IPv6 one: mapped, 6to4, Teredo, NAT64; None for a plain one."""
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip.teredo is not None:
        return ip.teredo
    if any(ip in net for net in _NAT64):
        return (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF),)
    return None


def lookup(host: str, port: int) -> list[str]:
    """The addresses of a host by the system's resolver, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(a[4][0]) for a in found))


def resolve(host: str, port: int, *, private: bool = False, by: Lookup = lookup) -> str:
    """The one address to connect to, looked up now and checked; whoever connects uses it and asks no second time.

    All addresses of the host must be public: `Refused("url_private")` otherwise, `Refused("url_host")` where there is
    none, `Refused("url_address")` for a number that is not written as an address is ("2130706433", "0177.0.0.1",
    "0x7f.1"). `private` lets private addresses through, not odd spellings.
    """
    _spelling(host)
    try:
        found = by(host, port)
    except (OSError, UnicodeError, ValueError) as error:
        raise Refused("url_host", f"host {host[:80]!r} cannot be found: {error}") from error
    if not found:
        raise Refused("url_host", f"host {host[:80]!r} has no address")
    if not private and not all(public(a) for a in found):
        raise Refused("url_private", f"host {host[:80]!r} leads to a private address")
    return found[0]


def _spelling(host: str) -> None:
    """Refuse what C libraries read as an address although it is not written like one."""
    bare = host.strip("[]").rstrip(".")
    try:
        ipaddress.ip_address(bare.split("%")[0])
    except ValueError:
        pass
    else:
        if bare != host.strip("[]") or "%" in bare:  # a final point, a zone
            raise Refused("url_address", f"{host[:80]!r} is an address in an odd spelling")
        return
    last = bare.rsplit(".", 1)[-1].lower()
    if last.isdigit() or (last.startswith("0x") and all(c in "0123456789abcdef" for c in last[2:])):
        raise Refused("url_address", f"{host[:80]!r} is an address in an odd spelling")
