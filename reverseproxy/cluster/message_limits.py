"""
What messages may grow by between our own two ends.

One end takes a message within its limits and adds to it: X-Forwarded-For and
Via, the headers that a route demands, what it takes to write it in another version
of HTTP.  The other end must take that, or what passes with a little less is
refused by somebody whose limits nobody has exceeded.  So limits are wider on the
connections between a server and its agents, in both directions.
"""

from __future__ import annotations

__all__ = ["FIELD_ROOM", "HEAD_ROOM", "response_limits"]

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

HEAD_ROOM: Final = 16384
"""Bytes that a head, or the headers of an RPC protocol, may grow by."""

FIELD_ROOM: Final = 32
"""Fields that may be added to a head."""

_RESPONSE_HEAD: Final = 65536
_RESPONSE_FIELDS: Final = 100


def response_limits(host: Host) -> tuple[int, int]:
    """
    Say what heads a host may answer with.

    @return: the most bytes, and the most fields.
    """
    cluster = host.cluster
    size, fields = _RESPONSE_HEAD, _RESPONSE_FIELDS
    if cluster is not None:
        size, fields = cluster.config.max_response_header_size, cluster.config.max_response_headers_count
    return (size + HEAD_ROOM, fields + FIELD_ROOM) if host.is_reverse else (size, fields)
