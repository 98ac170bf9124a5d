"""
Keys of consistent hashing.

As in MOSN (C{headerHashPolicyImpl} and the like in C{pkg/router/types.go}), a key is
made of a header, a cookie, or else the client's address.  Keys are texts of the same
form as there; the load balancer maps them to hosts.  A request without the header or
cookie has no key, so that such requests are spread over all hosts; in MOSN they have
the key 0, and one host gets them all.
"""

from __future__ import annotations

__all__ = ["HashKey", "cookie_key", "find_cookie", "header_key", "source_ip_key"]

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.routing.facts import RouteInput

HashKey = Callable[["RouteInput", str], bytes | None]
"""Returns the key of a request, given it and the client's IP address; L{None} for none."""


def source_ip_key(facts: RouteInput, remote_ip: str) -> bytes | None:
    """Return the client's address; IPv4-mapped IPv6 addresses count as IPv4."""
    return remote_ip.removeprefix("::ffff:").encode("utf-8", "surrogateescape") or None


def header_key(name: str) -> HashKey:
    """Make keys of a header."""
    lower = name.lower()

    def key(facts: RouteInput, remote_ip: str) -> bytes | None:
        value = facts.headers(lower)
        return None if value is None else f"{name}:{value}".encode("utf-8", "surrogateescape")

    return key


def cookie_key(name: str) -> HashKey:
    """Make keys of a cookie; a client without it is not given one, as in MOSN."""

    def key(facts: RouteInput, remote_ip: str) -> bytes | None:
        value = find_cookie(facts, name)
        return None if value is None else f"{name}={value}".encode("utf-8", "surrogateescape")

    return key


def find_cookie(facts: RouteInput, name: str) -> str | None:
    """Return the value of a cookie; of several with the name, the first one's."""
    cookies = facts.headers("cookie")
    if cookies is None:
        return None
    for pair in cookies.split(";"):
        found, equals, value = pair.partition("=")
        if equals and found.strip(" \t") == name:
            value = value.strip(" \t")
            return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return None
