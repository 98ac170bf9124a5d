"""
What consistent hashing goes by.

As in MOSN (C{headerHashPolicyImpl} and its relatives in C{pkg/router/types.go}), a
header, a cookie, or else the client's address.  Keys are texts of the same form
as there; which host has a key is up to the balancer.  A request without the
header or cookie has no key, so that all hosts share such requests; in MOSN they
all have the key 0, and one host gets them all.
"""

from __future__ import annotations

__all__ = ["HashKey", "cookie_key", "find_cookie", "header_key", "source_ip_key"]

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.routing.facts import RouteInput

HashKey = Callable[["RouteInput", str], bytes | None]
"""Given a request and the client's IP address, the key."""


def source_ip_key(facts: RouteInput, remote_ip: str) -> bytes | None:
    """The client's address; one of IPv4 is the same whether or not it is written as IPv6."""
    return remote_ip.removeprefix("::ffff:").encode("utf-8", "surrogateescape") or None


def header_key(name: str) -> HashKey:
    """Go by a header."""
    lower = name.lower()

    def key(facts: RouteInput, remote_ip: str) -> bytes | None:
        value = facts.headers(lower)
        return None if value is None else f"{name}:{value}".encode("utf-8", "surrogateescape")

    return key


def cookie_key(name: str) -> HashKey:
    """Go by a cookie; none is made for a client that has none, as in MOSN."""

    def key(facts: RouteInput, remote_ip: str) -> bytes | None:
        value = find_cookie(facts, name)
        return None if value is None else f"{name}={value}".encode("utf-8", "surrogateescape")

    return key


def find_cookie(facts: RouteInput, name: str) -> str | None:
    """Find a cookie's value; of several with the name, the first one's."""
    cookies = facts.headers("cookie")
    if cookies is None:
        return None
    for pair in cookies.split(";"):
        found, equals, value = pair.partition("=")
        if equals and found.strip(" \t") == name:
            value = value.strip(" \t")
            return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return None
