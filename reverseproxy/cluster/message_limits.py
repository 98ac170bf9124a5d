"""
The allowance for what proxies add to messages between servers and agents.

One end accepts a message within its limits and adds to it: X-Forwarded-For and
Via, the headers of a route, and what the translation to another version of HTTP
takes.  The other end must accept the result; otherwise it would refuse messages
that the client has sent within the limits.  So limits are larger on the connections
between a server and its agents, in both directions.
"""

from __future__ import annotations

__all__ = ["FIELD_ROOM", "HEAD_ROOM", "response_limits"]

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

HEAD_ROOM: Final = 16384
"""Bytes that may be added to a head, or to the headers of an RPC message."""

FIELD_ROOM: Final = 32
"""Header fields that may be added to a head."""

_RESPONSE_HEAD: Final = 65536
_RESPONSE_FIELDS: Final = 100


def response_limits(host: Host) -> tuple[int, int]:
    """
    Return the limits of response heads from a host.

    @return: the most bytes, and the most header fields.
    """
    cluster = host.cluster
    size, fields = _RESPONSE_HEAD, _RESPONSE_FIELDS
    if cluster is not None:
        size, fields = cluster.config.max_response_header_size, cluster.config.max_response_headers_count
    return (size + HEAD_ROOM, fields + FIELD_ROOM) if host.is_reverse else (size, fields)
