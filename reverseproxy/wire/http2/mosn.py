"""
What MOSN sends in HTTP/2 that RFC 9113 does not allow, and how it is normalised.

From any other peer such a message resets its stream.  MOSN's ends of a tunnel send
them in ordinary operation, and accept each other's, so that on such connections the
fields are normalised first (seen in MOSN's C{pkg/module/http2} and
C{pkg/stream/http2}):

  - A C{content-length} of 0 in front of a body.  An agent with
    C{http2_use_stream} writes the length of what has come of the body when it
    writes the head, which may be nothing; in the response to HEAD and in a
    304 it is always 0.  A server writes 0 where a request of HTTP/1 had a body
    of unknown length.
  - Fields of HTTP/1, such as C{connection: keep-alive}, in responses of services
    that speak HTTP/1.
  - C{te} with whatever a client of HTTP/1 had there.

That is safe: in HTTP/2 frames end a body, whatever the fields say, and what is
forwarded to a peer of HTTP/1 is framed anew.
"""

from __future__ import annotations

__all__ = ["CONNECTION_SPECIFIC", "mend_request", "mend_response"]

from typing import Final

from reverseproxy.wire.http.fields import Headers

CONNECTION_SPECIFIC: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
"""Fields that a message of HTTP/2 must not have (RFC 9113 8.2.2)."""

_EMPTY: Final = (b"content-length", b"0")

_TRAILERS: Final = (b"te", b"trailers")


def mend_request(fields: Headers, ended: bool) -> Headers:
    """
    Normalise the fields of a request from a MOSN server.

    @param ended: whether there is neither body nor trailers.
    """
    mended: Headers = []
    for field in fields:
        if field[0] == b"te":
            if b"trailers" in [part.strip(b" \t") for part in field[1].lower().split(b",")]:
                mended.append(_TRAILERS)
        elif (field != _EMPTY or ended) and field[0] not in CONNECTION_SPECIFIC:
            mended.append(field)
    return mended


def mend_response(fields: Headers, ended: bool, head_request: bool) -> Headers:
    """
    Normalise the fields of a response from a MOSN agent.

    @param ended: whether there is neither body nor trailers.
    @param head_request: whether the request's method was HEAD.
    """
    known = ended and not head_request and (b":status", b"304") not in fields
    return [field for field in fields if (field != _EMPTY or known) and field[0] not in CONNECTION_SPECIFIC]
