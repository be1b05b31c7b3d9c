"""Where a delivery may go: http(s) only, and nowhere inside, unless a setting says so.

A name is resolved once and the address that was checked is the one that is connected to: a name that changes
its mind in between leads nowhere else.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

URL_MAX: Final = 2_048
Resolve = Callable[[str, int], Sequence[str]]


class ForbiddenTarget(ValueError):
    """This address may not be called; the message says why. Correct the subscription."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address. `url`: with the address instead of the name; `host`: what the name was."""

    url: str
    host: str
    name: str


def check_url(url: str, *, inside: bool) -> None:
    """What can be said without resolving. Raises `ForbiddenTarget`."""
    _parts(url)
    name = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if not inside and (name == "localhost" or name.endswith((".localhost", ".local", ".internal"))):
            raise ForbiddenTarget(f"{name} is inside") from None
        return
    _check_address(str(address), inside=inside)


def target_of(url: str, resolve: Resolve, *, inside: bool) -> Target:
    """The address to connect to; may block for a look-up. Raises `ForbiddenTarget`, `OSError`."""
    check_url(url, inside=inside)
    scheme, name, port, rest = _parts(url)
    addresses = list(resolve(name, port))
    if not addresses:
        raise OSError(f"{name} has no address")
    # One that is inside condemns the name: which one is taken would be chance.
    for address in addresses:
        _check_address(address, inside=inside)
    place = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    usual = port == (443 if scheme == "https" else 80)
    shown = f"[{name}]" if ":" in name else name
    return Target(f"{scheme}://{place}:{port}{rest}", shown if usual else f"{shown}:{port}", name)


def resolve(name: str, port: int) -> list[str]:
    """The addresses of a name by the system's resolver."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _parts(url: str) -> tuple[str, str, int, str]:
    if len(url) > URL_MAX or not url.isascii() or any(c.isspace() for c in url):
        raise ForbiddenTarget(f"an address has at most {URL_MAX} characters of ASCII and no spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ForbiddenTarget(f"no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ForbiddenTarget("write http://HOST/PATH or https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ForbiddenTarget("an address holds no user or password: deliveries are signed")
    rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), rest


def _check_address(text: str, *, inside: bool) -> None:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    for each in (address, mapped):
        if each is None:
            continue
        if each.is_multicast or each.is_unspecified or (not inside and not each.is_global):
            raise ForbiddenTarget(f"{text} is no public address; CORDON_WEBHOOKS__INSIDE=true allows it")
