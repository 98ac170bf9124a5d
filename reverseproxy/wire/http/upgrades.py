"""
C{Upgrade} (RFC 9110 7.8): what a client offers to switch to, and what a host has chosen.

The field is a list of protocols, each a name that may have a version
(C{SPDY/3.1}).  What a proxy passes on is the list as the client wrote it, but
for those protocols that would change what the proxy itself does: another HTTP,
in which requests would get past that nobody looks at, and TLS, which belongs to
one connection.  Nobody can insist on an upgrade, so that they may be left out.
"""

from __future__ import annotations

__all__ = ["H2C", "agrees", "may_pass", "names_of", "passed_on", "protocols_of"]

import re
from typing import Final

from reverseproxy.wire.http.fields import TOKEN

H2C: Final = b"h2c"
"""
HTTP/2 without TLS.

With C{HTTP2-Settings} beside it, it asks whoever reads it for HTTP/2, and is
never passed on.  Without (docker's build sessions), no server of HTTP may act on
it (RFC 7540 3.2.1), and it is what two ends have agreed to mean by it.
"""

_protocol: Final = re.compile(rb"(%b+)(?:/(%b+))?" % (TOKEN, TOKEN)).fullmatch
_own: Final = re.compile(rb"(?i)(?:s?https?|tls|ssl|h2c?(?:-.*)?|h3(?:-.*)?)").fullmatch


def may_pass(protocol: bytes, h2c: bool = False) -> bool:
    """
    Tell whether a protocol may be offered to a host.

    @param protocol: a name, with a version or without.
    @param h2c: whether L{H2C} may.
    """
    found = _protocol(protocol)
    if found is None:
        return False
    name = found[1].lower()
    return (h2c and name == H2C) or _own(name) is None


def protocols_of(value: bytes) -> list[bytes]:
    """Take the value of an C{Upgrade} field apart; several fields are joined with commas before."""
    return [protocol for part in value.split(b",") if (protocol := part.strip(b" \t"))]


def passed_on(value: bytes, h2c: bool = False) -> bytes:
    """
    Find what of a client's offer goes on to a host.

    @param value: of the C{Upgrade} field.
    @param h2c: see L{may_pass}.
    @return: empty if nothing does.
    """
    return b", ".join([protocol for protocol in protocols_of(value) if may_pass(protocol, h2c)])


def names_of(value: bytes) -> list[bytes]:
    """Take the names of protocols, in lower case and without versions."""
    return [protocol.partition(b"/")[0].lower() for protocol in protocols_of(value)]


def agrees(offered: bytes, chosen: bytes) -> bool:
    """
    Tell whether a host has switched to what the client has offered.

    Names are compared without regard to case (as everybody does), and versions
    where both have one.

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
