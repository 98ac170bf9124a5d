"""Requests to the admin API and their answers, without I/O."""

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

    @ivar method: in upper case.
    @ivar path: the path, decoded, without the query.
    @ivar parts: its segments, decoded one by one.
    @ivar query: by name; the last one of a name counts.
    @ivar queries: all of them, in order.
    @ivar headers: finds a field; empty if there is none.
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
    """Write JSON."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in one piece."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Reply:
        """Answer with JSON."""
        return cls(status, compact(value) + b"\n")

    @classmethod
    def text(cls, text: str, status: int = 200) -> Reply:
        """Answer with text."""
        return cls(status, text.encode("utf-8", "backslashreplace"), TEXT)


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """
    An answer whose body is written piece by piece, for as long as the client is connected.

    @ivar begin: called with a function that writes a piece, and returns whether the client takes more now;
        returns what is called when the client has disconnected.
    """

    begin: Callable[[Callable[[bytes], bool]], Callable[[], object]]
    content_type: str = "text/event-stream"


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
        """Return the answer."""
        body = {"title": str(self), "status": self.status}
        return Reply(
            self.status, json.dumps(body).encode("ascii") + b"\n", "application/problem+json", self.headers
        )
