"""
C{Upgrade} (RFC 9110 7.8): what a client offers to switch to, and what a host has chosen.

The field is a list of protocols, each a name that may have a version
(C{SPDY/3.1}).  A proxy forwards the list as the client wrote it, without the
protocols that concern the proxy itself: other versions of HTTP, whose requests
would bypass routing and limits, and TLS, which belongs to one connection.  A
client can't insist on an upgrade, so that they may be left out.
"""

from __future__ import annotations

__all__ = ["H2C", "agrees", "may_pass", "names_of", "passed_on", "protocols_of"]

import re
from typing import Final

from reverseproxy.wire.http.fields import TOKEN

H2C: Final = b"h2c"
"""
HTTP/2 without TLS.

With C{HTTP2-Settings} beside it, it asks the next hop for HTTP/2, and is never
forwarded.  Without (docker's build sessions), no HTTP server may act on it
(RFC 7540 3.2.1), so that client and host use it as they have agreed to.
"""

_protocol: Final = re.compile(rb"(%b+)(?:/(%b+))?" % (TOKEN, TOKEN)).fullmatch
_own: Final = re.compile(rb"(?i)(?:s?https?|tls|ssl|h2c?(?:-.*)?|h3(?:-.*)?)").fullmatch


def may_pass(protocol: bytes, h2c: bool = False) -> bool:
    """
    Return whether a protocol may be offered to a host.

    @param protocol: a name, with a version or without.
    @param h2c: whether L{H2C} may.
    """
    found = _protocol(protocol)
    if found is None:
        return False
    name = found[1].lower()
    return (h2c and name == H2C) or _own(name) is None


def protocols_of(value: bytes) -> list[bytes]:
    """Parse the value of an C{Upgrade} field; the values of several fields are to be joined with commas."""
    return [protocol for part in value.split(b",") if (protocol := part.strip(b" \t"))]


def passed_on(value: bytes, h2c: bool = False) -> bytes:
    """
    Return the part of a client's offer that is forwarded to a host.

    @param value: of the C{Upgrade} field.
    @param h2c: see L{may_pass}.
    @return: the value of the C{Upgrade} field; empty for none.
    """
    return b", ".join([protocol for protocol in protocols_of(value) if may_pass(protocol, h2c)])


def names_of(value: bytes) -> list[bytes]:
    """Return the names of protocols, in lower case and without versions."""
    return [protocol.partition(b"/")[0].lower() for protocol in protocols_of(value)]


def agrees(offered: bytes, chosen: bytes) -> bool:
    """
    Return whether a host has switched to a protocol that the client has offered.

    Names are compared without regard to case, and versions where both have one.

    @param offered: the C{Upgrade} field of the request.
    @param chosen: that of the answer: one protocol, or several that build on
        each other.
    """
    offers = [protocol.lower().partition(b"/") for protocol in protocols_of(offered)]
    choices = [protocol.lower().partition(b"/") for protocol in protocols_of(chosen)]
    return bool(choices) and all(
        any(
            name == offer and (not version or not offered_version or version == offered_version)
            for offer, _, offered_version in offers
        )
        for name, _, version in choices
    )
