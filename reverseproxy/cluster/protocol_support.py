"""
Which protocols hosts speak, where it is clients that choose one.

A listener that tells several protocols apart speaks to hosts as its client does,
unless the route says otherwise.  So a stranger can have hosts spoken to in what
they have never heard of, and what they make of that, such as to close the
connection, must not count as their fault, nor be done to them again and again.

An agent of ours says what its listener speaks when it joins.  Of others it is
found out: who has answered in a protocol speaks it; who has never done so and
ends a connection without an answer is left alone with that protocol, for longer
each time.  What is found out of one connection holds for all of an agent.

To speak a protocol is not to serve it: an agent that passes several on, such as
MOSN's, answers by itself in one that its service knows nothing of, with an error.
So errors of a host that has never answered with success in what a client has
chosen are nobody's fault.  Where others do serve it, such a host is left alone
with it as well, once it has failed like that several times in a row.
"""

from __future__ import annotations

__all__ = ["MOST_AGENTS", "ProtocolSupport", "ProtocolSupportTable"]

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

FIRST_REST: Final = 1.0
"""Seconds for which a protocol is not tried again that a host does not seem to speak."""

LONGEST_REST: Final = 60.0
"""The same after many times; it doubles with each."""

MOST_ERRORS: Final = 5
"""Errors in a row of a host that has never served a protocol, before it is left alone with it."""

MOST_AGENTS: Final = 8192
"""Agents of one cluster that something is known of; who was heard of longest ago is forgotten."""


class _Silence:
    """
    That a host has not answered in a protocol.

    @ivar until: when it may be tried once more.
    @ivar rest: for how long it was left alone the last time, in seconds.
    """

    __slots__ = ("rest", "until")

    def __init__(self) -> None:
        self.until = self.rest = 0.0


class ProtocolSupport:
    """
    What one agent, or a host without one, speaks, as far as that is known.

    @ivar announced: all that it speaks, if it has said so.
    @ivar served: the protocols in which it has answered with success.
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
        """Whether there is anything that it does not speak."""
        return self.announced is not None or bool(self._silences)

    def speaks(self, protocol: str) -> bool:
        """Whether it has answered in this protocol, or said that it speaks it; and is not left alone."""
        if protocol in self._silences:
            return False
        return protocol in self._heard or (self.announced is not None and protocol in self.announced)

    def may_try(self, protocol: str) -> bool:
        """
        Whether a request may be sent in this protocol.

        Where it did not seem to be spoken, one request at a time is to find out
        whether that has changed.
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
        """An answer has come in this protocol."""
        self._heard.add(protocol)
        if protocol not in self._errors:
            self._silences.pop(protocol, None)

    def succeeded(self, protocol: str) -> None:
        """An answer has come in this protocol that is no error."""
        self._heard.add(protocol)
        self.served.add(protocol)
        self._errors.pop(protocol, None)
        self._silences.pop(protocol, None)

    def erred(self, protocol: str, shy: bool) -> None:
        """
        Take in an error in a protocol that it has never served.

        @param shy: whether others serve it.
        """
        errors = self._errors[protocol] = self._errors.get(protocol, 0) + 1
        if errors >= MOST_ERRORS and shy:
            self._errors[protocol] = MOST_ERRORS - 1  # when it is tried again, one is enough
            silence = self._silences.setdefault(protocol, _Silence())
            silence.until = max(silence.until, self._seconds() + FIRST_REST)

    def note_silence(self, protocol: str) -> bool:
        """
        Take in that a connection was over before there was an answer.

        @return: whether that is because the protocol is not spoken, as far as is known.
        """
        if self.speaks(protocol):
            return False
        silence = self._silences.setdefault(protocol, _Silence())
        now = self._seconds()
        if silence.rest and now < silence.until - FIRST_REST:
            return True  # it was sent before
        silence.rest = min(LONGEST_REST, 2 * silence.rest) or FIRST_REST
        silence.until = now + silence.rest
        return True


class ProtocolSupportTable:
    """What the hosts of one cluster speak."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: tells the time.
        """
        self._seconds = seconds
        self._known: OrderedDict[Hashable, ProtocolSupport] = OrderedDict()
        self._served: set[str] = set()  # protocols, by any host that there ever was

    def joined(self, host: Host) -> None:
        """Have a host that joins know what is known of its agent, or has been said by it."""
        key = _key(host)
        known = self._known.get(key) if host.announced is None else self._of(key)
        if known is not None:
            known.announced = host.announced
            host.protocol_support = known if known.limited else None

    def note_answer(self, host: Host, protocol: str) -> None:
        """A host has answered in this protocol."""
        self._of(_key(host)).note_answer(protocol)

    def succeeded(self, host: Host, protocol: str) -> None:
        """A host has answered in this protocol, and not with an error."""
        self._of(_key(host)).succeeded(protocol)
        self._served.add(protocol)

    def serves(self, host: Host, protocol: str) -> bool:
        """Whether a host, or one of the same agent, has ever answered with success in this protocol."""
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
        """Have all of an agent's connections know what is known of it."""
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
    """Tell an agent from others, or a host without one; all of an agent's connections are alike."""
    if host.identity is None:
        return host.address
    return host.identity, host.address.rpartition(":")[0]
