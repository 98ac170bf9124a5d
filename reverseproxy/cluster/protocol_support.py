"""
Track which protocols hosts speak, for listeners whose clients choose the protocol.

A listener that detects several protocols uses the client's protocol towards hosts,
unless the route names another.  So any client can send hosts requests in a protocol
that they don't speak.  Their reactions, such as closing the connection, must not
count as failures, and such requests must not be sent to them again and again.

This project's agents announce the protocols of their listener when they join.  For
other hosts it is learnt: a host that has responded in a protocol speaks it; one that
has never done so and closes a connection without a response gets no requests in that
protocol for a time, which doubles with each repetition.  What is learnt from one
connection applies to all connections of an agent.

A host that speaks a protocol need not serve it: an agent that forwards several, such
as MOSN's, responds with an error in a protocol that its service does not know.  So
errors of a host that has never responded with success in the client's protocol do
not count as failures.  If other hosts serve the protocol, such a host gets no
requests in it either, after several such errors in a row.
"""

from __future__ import annotations

__all__ = ["MOST_AGENTS", "ProtocolSupport", "ProtocolSupportTable"]

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

FIRST_REST: Final = 1.0
"""Seconds for which a host gets no requests in a protocol that it does not seem to speak."""

LONGEST_REST: Final = 60.0
"""The maximum of that time, which doubles with each repetition, in seconds."""

MOST_ERRORS: Final = 5
"""Errors in a row after which a host that has never served a protocol gets no requests in it."""

MOST_AGENTS: Final = 8192
"""The most agents of one cluster that are remembered; the least recently seen is forgotten."""


class _Silence:
    """
    The time for which a host gets no requests in a protocol.

    @ivar until: when one request may try it again, in the clock's seconds.
    @ivar rest: the length of the last such time, in seconds.
    """

    __slots__ = ("rest", "until")

    def __init__(self) -> None:
        self.until = self.rest = 0.0


class ProtocolSupport:
    """
    What is known of the protocols of one agent, or of a host without one.

    @ivar announced: all protocols that it speaks, if it has announced them.
    @ivar served: the protocols in which it has responded with success.
    """

    __slots__ = ("_errors", "_heard", "_seconds", "_silences", "announced", "served")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.announced: frozenset[str] | None = None
        self._seconds = seconds
        self.served: set[str] = set()
        self._heard: set[str] = set()
        self._errors: dict[str, int] = {}  # in a row, in protocols that it has never served
        self._silences: dict[str, _Silence] = {}

    @property
    def limited(self) -> bool:
        """Whether there is a protocol that it is known not to speak."""
        return self.announced is not None or bool(self._silences)

    def speaks(self, protocol: str) -> bool:
        """Return whether it has responded in this protocol, or announced it, and may get requests in it."""
        if protocol in self._silences:
            return False
        return protocol in self._heard or (self.announced is not None and protocol in self.announced)

    def may_try(self, protocol: str) -> bool:
        """
        Return whether a request may be sent in this protocol.

        If the protocol did not seem to be spoken, one request at a time tries it again.
        """
        if self.announced is not None and protocol not in self.announced:
            return False
        silence = self._silences.get(protocol)
        if silence is None:
            return True
        now = self._seconds()
        if now < silence.until:
            return False
        silence.until = now + FIRST_REST
        return True

    def note_answer(self, protocol: str) -> None:
        """Take note of a response in this protocol."""
        self._heard.add(protocol)
        if protocol not in self._errors:
            self._silences.pop(protocol, None)

    def succeeded(self, protocol: str) -> None:
        """Take note of a response in this protocol that is not an error."""
        self._heard.add(protocol)
        self.served.add(protocol)
        self._errors.pop(protocol, None)
        self._silences.pop(protocol, None)

    def erred(self, protocol: str, shy: bool) -> None:
        """
        Take note of an error in a protocol that it has never served.

        @param shy: whether other hosts serve it.
        """
        errors = self._errors[protocol] = self._errors.get(protocol, 0) + 1
        if errors >= MOST_ERRORS and shy:
            self._errors[protocol] = MOST_ERRORS - 1  # one more error is enough after the pause
            silence = self._silences.setdefault(protocol, _Silence())
            silence.until = max(silence.until, self._seconds() + FIRST_REST)

    def note_silence(self, protocol: str) -> bool:
        """
        Take note of a connection that was closed before there was a response.

        @return: whether that is put down to a protocol that the host does not speak.
        """
        if self.speaks(protocol):
            return False
        silence = self._silences.setdefault(protocol, _Silence())
        now = self._seconds()
        if silence.rest and now < silence.until - FIRST_REST:
            return True  # sent before the pause began
        silence.rest = min(LONGEST_REST, 2 * silence.rest) or FIRST_REST
        silence.until = now + silence.rest
        return True


class ProtocolSupportTable:
    """What is known of the protocols of one cluster's hosts."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: returns the time in seconds.
        """
        self._seconds = seconds
        self._known: OrderedDict[Hashable, ProtocolSupport] = OrderedDict()
        self._served: set[str] = set()  # protocols, by any host so far

    def joined(self, host: Host) -> None:
        """Give a host that joins what is known of its agent, and what the agent announces."""
        key = _key(host)
        known = self._known.get(key) if host.announced is None else self._of(key)
        if known is not None:
            known.announced = host.announced
            host.protocol_support = known if known.limited else None

    def note_answer(self, host: Host, protocol: str) -> None:
        """Take note of a host's response in this protocol."""
        self._of(_key(host)).note_answer(protocol)

    def succeeded(self, host: Host, protocol: str) -> None:
        """Take note of a host's response in this protocol that is not an error."""
        self._of(_key(host)).succeeded(protocol)
        self._served.add(protocol)

    def serves(self, host: Host, protocol: str) -> bool:
        """Return whether a host, or one of the same agent, has ever responded with success in a protocol."""
        support = self._known.get(_key(host))
        return support is not None and protocol in support.served

    def erred(self, host: Host, protocol: str) -> None:
        """See L{ProtocolSupport.erred}."""
        support = self._of(_key(host))
        support.erred(protocol, protocol in self._served)
        if support.limited:
            self._tell(host, support)

    def note_silence(self, host: Host, protocol: str) -> bool:
        """See L{ProtocolSupport.note_silence}."""
        support = self._of(_key(host))
        found = support.note_silence(protocol)
        if found:
            self._tell(host, support)
        return found

    def _tell(self, host: Host, support: ProtocolSupport) -> None:
        """Share what is known of an agent among all its connections."""
        host.protocol_support = support
        for each in host.same_agent:
            each.protocol_support = support

    def _of(self, key: Hashable) -> ProtocolSupport:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = ProtocolSupport(self._seconds)
            if len(self._known) > MOST_AGENTS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known


def _key(host: Host) -> Hashable:
    """Return the key of a host's agent, or of a host without one; all connections of an agent share it."""
    if host.identity is None:
        return host.address
    return host.identity, host.address.rpartition(":")[0]
