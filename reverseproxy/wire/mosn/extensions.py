"""
What agents and servers of this project tell each other beyond MOSN's protocol, in
the C{extra} of tunnel frames; docs/wire-protocol.rst has each member.

MOSN ignores C{extra}, and our server sends one only to an agent that has announced
itself, so that MOSN peers never see a byte that they do not expect.  What is
malformed is treated as if it had not been sent.
"""

from __future__ import annotations

__all__ = [
    "EXTRA_KEY",
    "MAX_AGENT_LENGTH",
    "MAX_METADATA_ENTRIES",
    "MAX_PROTOCOLS",
    "MAX_REASON",
    "MAX_RETRY_AFTER",
    "MAX_MUX_ENTRIES",
    "MAX_MUX_WINDOW",
    "MAX_TEXT_LENGTH",
    "MAX_WORKERS",
    "MIN_MUX_WINDOW",
    "VERSION",
    "YAMUX",
    "Announcement",
    "CloseProof",
    "ServerAnnouncement",
]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reverseproxy.wire.mosn.route_requests import BroughtRoutes, RouteRequest

EXTRA_KEY = "reverseproxy"
"""The member of C{extra} that has everything beyond MOSN's protocol."""

VERSION = 1
"""The version of these messages that this code speaks."""

MAX_AGENT_LENGTH = 128
"""The longest agent id in characters."""

MAX_TEXT_LENGTH = 256
"""The longest address, policy name, metadata key or metadata value in characters."""

MAX_METADATA_ENTRIES = 32
"""How many metadata entries an agent may announce."""

MAX_MUX_ENTRIES = 8
"""How many protocols for streams an agent may offer."""

MAX_PROTOCOLS = 16
"""How many protocols an agent may name that it takes."""

MIN_MUX_WINDOW = 4096
MAX_MUX_WINDOW = 262144
"""The fewest and the most bytes of credit that two ends may agree on for a new stream."""

MAX_REASON = 200
"""Characters of the longest reason for a refusal."""

MAX_RETRY_AFTER = 24 * 3600 * 1000
"""The longest time in milliseconds after which a server may ask an agent to try again."""

MAX_WORKERS = 256
"""How many worker processes a server may announce."""

YAMUX = "yamux"
"""The one protocol for streams that is known here; see L{reverseproxy.wire.yamux.session}."""


def _check_text(what: str, text: str, most: int, least: int = 0) -> None:
    """Refuse a text of the wrong length, or with characters that are not printable."""
    if not least <= len(text) <= most:
        raise ValueError(f"{what} must have {least} to {most} characters, not {len(text)}")
    if not text.isprintable():
        raise ValueError(f"{what} must consist of printable characters")


def _check_version(version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError("the version must be an integer, 1 or more")


def _ours(extra: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the member L{EXTRA_KEY} of C{extra}; empty if there is none."""
    part = (extra or {}).get(EXTRA_KEY)
    return part if isinstance(part, Mapping) else {}


def _check_mux(name: object) -> str:
    """Check the name of a protocol for streams."""
    if not isinstance(name, str):
        raise ValueError("a way to carry streams must be a string")
    _check_text("the name of a way to carry streams", name, MAX_TEXT_LENGTH, 1)
    return name


def _check_window(window: object) -> None:
    """Check the initial credit of streams in bytes; 0 stands for the protocol's own."""
    if type(window) is not int or (window and not MIN_MUX_WINDOW <= window <= MAX_MUX_WINDOW):
        raise ValueError(f"a window must have {MIN_MUX_WINDOW} to {MAX_MUX_WINDOW} bytes")


def _check_workers(workers: object) -> None:
    """Check the number of worker processes of a server."""
    if type(workers) is not int or not 0 <= workers <= MAX_WORKERS:
        raise ValueError(f"there may be 0 to {MAX_WORKERS} workers")


def _workers(value: object) -> int:
    """Return a valid number of worker processes; 0 for any other value."""
    try:
        _check_workers(value)
    except ValueError:
        return 0
    assert isinstance(value, int)
    return value


def _text(part: Mapping[str, Any], key: str) -> str:
    """Return a text from the member L{EXTRA_KEY}; empty if it is missing."""
    value = part.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a string")
    return value


@dataclass(frozen=True, slots=True)
class Announcement:
    """
    What an agent of this project announces in its init frame.

    @ivar agent: the agent's id, the same on all connections of one agent and
        hard to guess; tells agents behind one address apart.
    @ivar local_address: the agent's own address on this connection, which behind
        address translation is not the one that the server sees.  A later graceful
        close names the connection by it.
    @ivar metadata: labels for the host.
    @ivar version: the newest version of these messages that the agent knows.
    @ivar mux: the protocols that the agent knows to carry many streams on this
        connection, best first; empty if it is to carry one request or session at a time.
    @ivar window: the initial credit of streams in bytes, in either direction, if the
        server agrees; 0 for the protocol's own.
    @ivar tells: whether the agent can say which requests it has not sent on, and
        whether its service can be reached; see L{reverseproxy.wire.http.unsent}.
    @ivar moves: whether the agent dials another connection when the server says that
        it is about to leave, and serves on this one until then.
    @ivar marks: whether the agent can begin what it sends, on a connection without
        streams, with a mark; see L{reverseproxy.wire.mosn.marks}.
    @ivar routes: the routes that it asks for.
    @ivar speaks: the protocols that the agent takes on this connection, by the names of
        C{downstream_protocol}; empty if it takes any, or does not say.
    """

    agent: str
    local_address: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    version: int = VERSION
    mux: tuple[str, ...] = ()
    window: int = 0
    tells: bool = False
    moves: bool = False
    routes: RouteRequest = field(default_factory=RouteRequest)
    marks: bool = False
    speaks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """
        Check the bounds.

        @raise ValueError: if something is too long, empty or not printable.
        """
        _check_version(self.version)
        _check_text("the agent id", self.agent, MAX_AGENT_LENGTH, 1)
        _check_text("the local address", self.local_address, MAX_TEXT_LENGTH)
        if len(self.metadata) > MAX_METADATA_ENTRIES:
            raise ValueError(f"metadata may have {MAX_METADATA_ENTRIES} entries, not {len(self.metadata)}")
        for key, value in self.metadata.items():
            _check_text("a metadata key", key, MAX_TEXT_LENGTH, 1)
            _check_text(f"the metadata value of {key}", value, MAX_TEXT_LENGTH)
        if len(self.mux) > MAX_MUX_ENTRIES:
            raise ValueError(f"there may be {MAX_MUX_ENTRIES} ways to carry streams, not {len(self.mux)}")
        for name in self.mux:
            _check_mux(name)
        _check_window(self.window)
        if len(self.speaks) > MAX_PROTOCOLS:
            raise ValueError(f"there may be {MAX_PROTOCOLS} protocols, not {len(self.speaks)}")
        for name in self.speaks:
            _check_text("the name of a protocol", name, MAX_TEXT_LENGTH, 1)

    def to_extra(self) -> dict[str, Any]:
        """Build the C{extra} of an init frame."""
        part: dict[str, Any] = {
            "version": self.version,
            "agent": self.agent,
            "local_address": self.local_address,
            "metadata": dict(self.metadata),
        }
        if self.mux:
            part["mux"] = list(self.mux)
        if self.window:
            part["window"] = self.window
        part |= _abilities(self)
        if self.speaks:
            part["speaks"] = list(self.speaks)
        return {EXTRA_KEY: part | self.routes.to_part()}

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any] | None) -> Announcement | None:
        """
        Find an announcement in an init frame's C{extra}.

        Metadata entries out of bounds are left out.

        @return: the announcement; L{None} if there is none or it is not well-formed.
        """
        part = _ours(extra)
        try:
            return cls(
                agent=_text(part, "agent"),
                local_address=_text(part, "local_address"),
                metadata=_metadata(part.get("metadata")),
                version=part.get("version", 0),
                mux=_mux(part.get("mux")),
                window=_window(part.get("window")),
                tells=part.get("tells") is True,
                moves=part.get("moves") is True,
                marks=part.get("marks") is True,
                routes=RouteRequest.from_part(part),
                speaks=_speaks(part.get("speaks")),
            )
        except ValueError:
            return None


def _abilities(end: Announcement | ServerAnnouncement) -> dict[str, bool]:
    """Return the members that say what an end supports beyond what every end does."""
    return {name: True for name in ("tells", "moves", "marks") if getattr(end, name)}


def _mux(value: object) -> tuple[str, ...]:
    """Return the well-formed names among protocols for streams."""
    good: list[str] = []
    if isinstance(value, list):
        for name in value[:MAX_MUX_ENTRIES]:
            try:
                good.append(_check_mux(name))
            except ValueError:
                continue
    return tuple(good)


def _speaks(value: object) -> tuple[str, ...]:
    """Return the protocols, if all names are well-formed; else none, as if the agent had not said."""
    if not isinstance(value, list) or len(value) > MAX_PROTOCOLS:
        return ()
    try:
        for name in value:
            if not isinstance(name, str):
                return ()
            _check_text("the name of a protocol", name, MAX_TEXT_LENGTH, 1)
    except ValueError:
        return ()
    return tuple(value)


def _window(value: object) -> int:
    """Return a valid initial credit; 0 for any other value."""
    try:
        _check_window(value)
    except ValueError:
        return 0
    assert isinstance(value, int)
    return value


def _metadata(value: object) -> dict[str, str]:
    """Return the well-formed entries of announced metadata."""
    good: dict[str, str] = {}
    if isinstance(value, Mapping):
        for key, text in value.items():
            if len(good) == MAX_METADATA_ENTRIES:
                break
            try:
                _check_text("a key", key, MAX_TEXT_LENGTH, 1)
                _check_text("a value", _text(value, key), MAX_TEXT_LENGTH)
            except ValueError:
                continue
            good[key] = text
    return good


@dataclass(frozen=True, slots=True)
class ServerAnnouncement:
    """
    What a server of this project answers to an agent that has announced itself.

    @ivar version: the version of these messages that the server speaks.
    @ivar mux: the protocol that carries streams on this connection, one of those that
        the agent has offered; both ends speak it right behind this frame.  Empty if the
        connection carries one request or session at a time.
    @ivar retry_after: if the connection is not accepted, because too many come at once:
        after how many milliseconds the agent should try again.  0 if it may choose.
    @ivar window: the initial credit of streams in bytes, no more than the agent has
        offered; 0 for the protocol's own.
    @ivar tells: whether the server makes use of the agent's C{tells}.
    @ivar moves: whether the server says when it is about to leave, as the agent has
        offered to dial another connection then.
    @ivar marks: whether the agent is to begin what it sends with a mark, as it has
        offered.
    @ivar workers: how many worker processes the server has: an agent whose connections
        carry streams does well to hold one to each.  0 if that does not matter.
    @ivar reason: why the server does not accept the connection, for people; only
        L{MAX_REASON} characters of it are sent and read.
    @ivar routes: the routes that the agent was given: all that it has asked for, or
        the connection is not accepted.
    """

    version: int = VERSION
    mux: str = ""
    retry_after: int = 0
    window: int = 0
    tells: bool = False
    reason: str = ""
    moves: bool = False
    routes: BroughtRoutes = field(default_factory=BroughtRoutes)
    marks: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        """
        Check the bounds.

        @raise ValueError: if the version is not a positive integer, the name of the
            protocol for streams is malformed, or a number is out of its bounds.
        """
        _check_version(self.version)
        _check_workers(self.workers)
        if type(self.retry_after) is not int or not 0 <= self.retry_after <= MAX_RETRY_AFTER:
            raise ValueError(f"retry_after must be 0 to {MAX_RETRY_AFTER} milliseconds")
        if self.mux:
            _check_mux(self.mux)
        _check_window(self.window)

    def to_extra(self) -> dict[str, Any]:
        """Build the C{extra} of an init response."""
        part: dict[str, Any] = {"version": self.version}
        if self.mux:
            part["mux"] = self.mux
        if self.window:
            part["window"] = self.window
        if self.retry_after:
            part["retry_after"] = self.retry_after
        part |= _abilities(self)
        if self.workers:
            part["workers"] = self.workers
        if self.reason:
            part["reason"] = self.reason[:MAX_REASON]
        return {EXTRA_KEY: part | self.routes.to_part()}

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any] | None) -> ServerAnnouncement | None:
        """
        Find a server's announcement in an init response's C{extra}.

        @return: the announcement; L{None} if there is none or it is not well-formed.
        """
        try:
            part = _ours(extra)
            return cls(
                part.get("version", 0),
                _text(part, "mux"),
                part.get("retry_after", 0),
                part.get("window", 0),
                part.get("tells") is True,
                "".join(each if each.isprintable() else "?" for each in _text(part, "reason")[:MAX_REASON]),
                part.get("moves") is True,
                BroughtRoutes.from_part(part),
                part.get("marks") is True,
                _workers(part.get("workers")),
            )
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class CloseProof:
    """
    How an agent proves in a graceful close that the connections are its own.

    It is sent only to a server that has announced itself, as it has the credential.

    @ivar agent: the agent's id, as in its L{Announcement}.
    @ivar credential_policy: the policy of its init frames; may be empty.
    @ivar credential: a credential for that policy, kept out of C{repr}.
    """

    agent: str
    credential_policy: str = ""
    credential: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """
        Check the bounds.

        @raise ValueError: if something is too long, empty or not printable.
        """
        _check_text("the agent id", self.agent, MAX_AGENT_LENGTH, 1)
        _check_text("the credential policy", self.credential_policy, MAX_TEXT_LENGTH)

    def to_extra(self) -> dict[str, Any]:
        """Build the C{extra} of a graceful close."""
        return {
            EXTRA_KEY: {
                "agent": self.agent,
                "credential_policy": self.credential_policy,
                "credential": self.credential,
            }
        }

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any] | None) -> CloseProof | None:
        """
        Find a proof in a graceful close's C{extra}.

        @return: the proof; L{None} if there is none or it is not well-formed.
        """
        part = _ours(extra)
        try:
            return cls(
                agent=_text(part, "agent"),
                credential_policy=_text(part, "credential_policy"),
                credential=_text(part, "credential"),
            )
        except ValueError:
            return None
