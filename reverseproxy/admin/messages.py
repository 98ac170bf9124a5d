"""Requests of the admin API and their answers, without I/O."""

from __future__ import annotations

__all__ = ["JSON", "TEXT", "ApiProblem", "Call", "Reply", "StreamedReply", "compact"]

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reverseproxy.interfaces import ConnectionInfo

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Call:
    """
    A request.

    @ivar method: the method in upper case.
    @ivar path: the path, decoded, without the query.
    @ivar parts: the segments of the path, decoded one by one.
    @ivar query: the query parameters by name; of several with one name, the last.
    @ivar queries: all query parameters, in order.
    @ivar headers: returns a header field by its name; empty if absent.
    @ivar body: the body.
    @ivar info: the connection.
    """

    method: str
    path: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    queries: tuple[tuple[str, str], ...]
    headers: Callable[[str], str]
    body: bytes
    info: ConnectionInfo


def compact(value: Any) -> bytes:
    """
    Encode JSON without spaces.

    @raise ValueError: if it contains a number that JSON can't represent, such as infinity.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is written in one piece."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Reply:
        """Return an answer with JSON."""
        return cls(status, compact(value) + b"\n")

    @classmethod
    def text(cls, text: str, status: int = 200) -> Reply:
        """Return an answer with plain text."""
        return cls(status, text.encode("utf-8", "backslashreplace"), TEXT)


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """
    An answer whose body is written piece by piece, for as long as the client is connected.

    @ivar begin: called with a function that writes bytes, and returns whether the client reads fast enough,
        and with one that ends the answer; returns a function that is called when the answer has ended.
    @ivar allowed: returns whether the client may still read; the answer ends if not.
    """

    begin: Callable[[Callable[[bytes], bool], Callable[[], object]], Callable[[], object]]
    content_type: str = "text/event-stream"
    allowed: Callable[[], bool] = lambda: True


class ApiProblem(Exception):
    """
    An error that is answered with problem details (RFC 9457).

    @ivar status: the status of the answer.
    """

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def reply(self) -> Reply:
        """Return the answer with the problem details."""
        body = {"title": str(self), "status": self.status}
        return Reply(
            self.status, json.dumps(body).encode("ascii") + b"\n", "application/problem+json", self.headers
        )
