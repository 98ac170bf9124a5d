"""
Messages between the servers of a fleet: at the beginning of each stream, and on control streams; pure.

    a stream for a request or session             bytes behind it
    {"v": 1, "cluster": ..., "agent": ...,  }     the data for the agent

Each message is a JSON object behind two bytes with its length. The peer has proved that it belongs to
the fleet, and is not trusted beyond that: sizes are bounded, and each field is checked.
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
"""The version of the protocol between servers."""

CAPABILITIES: Final = ("orders",)
"""
Capabilities of this version beyond what every implementation of version 1 understands.

A server lists its own in its hello; its peer sends it no message that needs others.
"""

MAX_FRAME: Final = 8192
"""Bytes of one message, at most."""

HOPS: Final = 1
"""How often a request may be forwarded: by the server that its client has sent it to, and by no other."""

_NEEDED: Final = dict.fromkeys(("keep_out", "let_in", "order"), "orders")
"""Capabilities that messages need, by the field that tells the kind of message."""

_SIZE: Final = 2
_MAX_TEXT: Final = 512
_AGENT: Final = re.compile(r"[0-9a-f]{32}")


def frame(message: Mapping[str, Any]) -> bytes:
    """
    Encode a message.

    @raise WireError: if it exceeds L{MAX_FRAME}.
    """
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME:
        raise WireError(f"{len(body)} bytes can't be told to another server, {MAX_FRAME} are the most")
    return len(body).to_bytes(_SIZE, "big") + body


def capabilities_of(hello: Mapping[str, Any]) -> frozenset[str]:
    """Return the capabilities that a hello lists; none if it is of a version that has no list."""
    knows = hello.get("knows")
    return (
        frozenset(each for each in knows if isinstance(each, str)) if isinstance(knows, list) else frozenset()
    )


def is_understood_by(message: Mapping[str, Any], knows: frozenset[str]) -> bool:
    """Return whether a peer with certain capabilities understands a message."""
    return all(needed in knows for name, needed in _NEEDED.items() if name in message)


class LinkFrameReader(FramedJsonReader):
    """Parses the messages of another server; buffers one message of up to L{MAX_FRAME} bytes."""

    prefix = _SIZE
    most = MAX_FRAME

    def too_long(self, size: int) -> str:
        """Return the error for a message that is too long; see L{FramedJsonReader}."""
        return f"another server announces {size} bytes, {MAX_FRAME} are the most"

    def no_object(self, body: bytes) -> str:
        """Return the error for a message that is not a JSON object; see L{FramedJsonReader}."""
        return f"another server sends what is no JSON object: {body[:32]!r}"

    @property
    def size(self) -> int:
        """How many bytes are buffered."""
        return len(self._data)

    def rest(self) -> bytes:
        """Take out all bytes behind the last message."""
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
    The first message of a stream for a request or session.

    @ivar cluster: the cluster of the agent.
    @ivar agent: the agent's key; see L{reverseproxy.fleet.records.agent_key}.
    @ivar protocol: the protocol on the stream, by its name in connection pools; empty for opaque bytes.
    @ivar client: the client's C{ip:port}; empty if the stream serves several clients, or if it is not
        known.
    @ivar hop: how often it has been forwarded, this time included.
    """

    cluster: str
    agent: str
    protocol: str = ""
    client: str = ""
    hop: int = HOPS

    def encode(self) -> bytes:
        """
        Encode the message.

        @raise WireError: if it exceeds L{MAX_FRAME}.
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
        Decode the message.

        @raise WireError: if it is malformed.
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
        """Whether it has not been forwarded too often: requests are forwarded once."""
        return self.hop <= HOPS
