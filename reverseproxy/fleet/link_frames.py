"""
What servers of a fleet say to each other at the beginning of a stream, and on the one that stays; pure.

    a stream for a request or session             bytes behind it
    {"v": 1, "cluster": ..., "agent": ...,  }     what is meant for the agent

Each of these is a JSON object behind two bytes with its length.  The peer has
proved that it belongs to the fleet, and is not trusted beyond that: what comes is
bounded and looked at field by field.
"""

from __future__ import annotations

__all__ = [
    "HOPS",
    "CAPABILITIES",
    "LINK_VERSION",
    "MAX_FRAME",
    "LinkFrameReader",
    "StreamHeader",
    "frame",
    "capabilities_of",
    "is_understood_by",
]

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reverseproxy.errors import WireError
from reverseproxy.wire.framed_json import FramedJsonReader

LINK_VERSION: Final = 1
"""The version of what servers say to each other."""

CAPABILITIES: Final = ("orders",)
"""
What this version understands beyond what all do that speak version 1 of links.

A server says so with its hello, and is told nothing that it does not know.
"""

MAX_FRAME: Final = 8192
"""Bytes of one of these objects at the most."""

HOPS: Final = 1
"""How often a request may be forwarded: by the server that has got it from its client, and by no other."""

_NEEDED: Final = dict.fromkeys(("keep_out", "let_in", "order"), "orders")
"""Of messages that not all understand: the name of what tells their kind, and what a peer has to know."""

_SIZE: Final = 2
_MAX_TEXT: Final = 512
_AGENT: Final = re.compile(r"[0-9a-f]{32}")


def frame(message: Mapping[str, Any]) -> bytes:
    """
    Make the bytes of an object.

    @raise WireError: if it has more than L{MAX_FRAME}.
    """
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME:
        raise WireError(f"{len(body)} bytes can't be told to another server, {MAX_FRAME} are the most")
    return len(body).to_bytes(_SIZE, "big") + body


def capabilities_of(hello: Mapping[str, Any]) -> frozenset[str]:
    """Say what a peer knows, by its hello: nothing, if it is of a version before there was something."""
    knows = hello.get("knows")
    return (
        frozenset(each for each in knows if isinstance(each, str)) if isinstance(knows, list) else frozenset()
    )


def is_understood_by(message: Mapping[str, Any], knows: frozenset[str]) -> bool:
    """Whether a peer understands a message, by what it knows."""
    return all(needed in knows for name, needed in _NEEDED.items() if name in message)


class LinkFrameReader(FramedJsonReader):
    """Takes out what another server says; no more than L{MAX_FRAME} bytes of it are kept."""

    prefix = _SIZE
    most = MAX_FRAME

    def too_long(self, size: int) -> str:
        """See L{FramedJsonReader}."""
        return f"another server announces {size} bytes, {MAX_FRAME} are the most"

    def no_object(self, body: bytes) -> str:
        """See L{FramedJsonReader}."""
        return f"another server sends what is no JSON object: {body[:32]!r}"

    @property
    def size(self) -> int:
        """How many bytes have come, and were not taken out."""
        return len(self._data)

    def rest(self) -> bytes:
        """Take out all that has come behind the last object."""
        data, self._data = bytes(self._data), bytearray()
        return data


def _text(message: Mapping[str, Any], name: str, needed: bool = False) -> str:
    value = message.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise WireError(f"{name} is no printable text of at most {_MAX_TEXT} characters")
    if needed and not value:
        raise WireError(f"{name} is missing")
    return value


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """
    What a stream is for.

    @ivar cluster: whose host is meant.
    @ivar agent: which of its agents; see L{reverseproxy.fleet.records.agent_key}.
    @ivar protocol: what is spoken on the stream, by its name as pools have it; empty for bytes as
        they are.
    @ivar client: the client's C{ip:port}; empty if the stream serves several, or if that is not known.
    @ivar hop: how often it has been forwarded, this time included.
    """

    cluster: str
    agent: str
    protocol: str = ""
    client: str = ""
    hop: int = HOPS

    def encode(self) -> bytes:
        """
        Make the bytes that a stream begins with.

        @raise WireError: if they are too many.
        """
        message: dict[str, Any] = {
            "v": LINK_VERSION,
            "cluster": self.cluster,
            "agent": self.agent,
            "hop": self.hop,
        }
        for name in ("protocol", "client"):
            value = getattr(self, name)
            if value:
                message[name] = value
        return frame(message)

    @classmethod
    def decode(cls, message: Mapping[str, Any]) -> StreamHeader:
        """
        Read what a stream begins with.

        @raise WireError: if it is no such thing; the message says why.
        """
        version, hop = message.get("v"), message.get("hop")
        if version != LINK_VERSION:
            raise WireError(f"version {version!r:.20} of streams is not known here, only {LINK_VERSION}")
        if type(hop) is not int or hop < 1:
            raise WireError("hop is no positive number")
        agent = _text(message, "agent", needed=True)
        if _AGENT.fullmatch(agent) is None:
            raise WireError("agent is no key of an agent")
        return cls(
            _text(message, "cluster", needed=True),
            agent,
            _text(message, "protocol"),
            _text(message, "client"),
            hop,
        )

    @property
    def may_be_served(self) -> bool:
        """Whether it has not been forwarded too often: nobody sends it on a second time."""
        return self.hop <= HOPS
