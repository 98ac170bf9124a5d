"""
The end of links that other servers dial: what they forward to our agents comes in here.

See L{reverseproxy.fleet.outgoing_links} for what is said.  Who comes has to prove that it is a
server of the fleet, before anything that it asks for is looked at.
"""

from __future__ import annotations

__all__ = ["IncomingLinks", "IncomingLink", "IncomingStream"]

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Handover
from reverseproxy.errors import WireError
from reverseproxy.fleet.announcer import Agent, LinkAnnouncer
from reverseproxy.fleet.link_frames import (
    CAPABILITIES,
    LINK_VERSION,
    LinkFrameReader,
    StreamHeader,
    capabilities_of,
    frame,
    is_understood_by,
)
from reverseproxy.fleet.outgoing_links import HELLO_TIMEOUT, LIMITS
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable
from reverseproxy.logs import Throttle, loss
from reverseproxy.mux.session import MuxSession
from reverseproxy.net.sockets import tune

log = Logger()

EARLY_LIMIT: Final = 65536
"""Bytes of a stream that are kept until there is somebody to give them to; reading pauses beyond them."""

NOTICE: Final = 1.5
"""Seconds for which a server that is about to leave still takes requests of those that it has told so."""

_LOG_RATE: Final = 1.0
_LOG_BURST: Final = 20


class IncomingStream(Handover):
    """
    A stream that another server has opened, until it has said what for.

    @ivar link: whose it is.
    """

    transport: Any

    def __init__(self, link: IncomingLink) -> None:
        super().__init__()
        self.link = link
        self._reader = LinkFrameReader()
        self._said = False
        self._ended = False

    def connectionMade(self) -> None:
        """Wait for its first words, not for ever."""
        self.link.expect(self)

    def dataReceived(self, data: bytes) -> None:
        """Wait for the first object; keep what comes behind it, until it is known whose that is."""
        self._reader.feed(data)
        if self._said:
            if self._reader.size > EARLY_LIMIT:
                self.transport.pauseProducing()
            return
        try:
            message = self._reader.next()
            if message is not None:
                self._said = True
                self.link.silent.pop(self, None)
                self.link.opened(self, message)
        except WireError as error:
            self.link.complain(str(error))
            self.transport.abortConnection()

    @property
    def kept(self) -> int:
        """How many bytes have come, and wait for whoever gets the stream."""
        return self._reader.size

    def readConnectionLost(self) -> None:
        """The other server sends no more, which whoever gets the stream has to know."""
        if self.inner is None and self._said:
            self._ended = True
        else:
            super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended, perhaps before it has said anything."""
        self.link.silent.pop(self, None)
        super().connectionLost(reason)

    def give_to(self, protocol: IProtocol) -> None:
        """Let a protocol have the stream, with all that has come behind the first object."""
        self.transport.resumeProducing()
        self.hand_over(protocol, self._reader.rest())
        if self._ended and not self.transport.disconnected:
            super().readConnectionLost()

    def refuse(self) -> None:
        """End the stream, of which nothing was passed on."""
        self.transport.disown()


class _ControlStream(Protocol):
    """The stream of a link that stays, at the end that was dialled."""

    transport: Any

    def __init__(self, link: IncomingLink) -> None:
        self._link = link
        self._reader = LinkFrameReader()

    def dataReceived(self, data: bytes) -> None:
        """Pass on what is said."""
        try:
            self._reader.feed(data)
            while (message := self._reader.next()) is not None:
                self._link.heard(message)
        except WireError as error:
            self._link.complain(str(error))
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The peer does not listen any more, so that it can't be told of anything."""
        self._link.unheard(loss(reason))


@implementer(IDrainable, IEndable)
class IncomingLink(Handover):
    """
    A connection that another server has dialled.

    @ivar server: its id, once it has said and proved it; empty before.
    @ivar knows: its capabilities; see L{CAPABILITIES<reverseproxy.fleet.link_frames.CAPABILITIES>}.
    @ivar session: its streams.
    @ivar silent: streams that have not said what they are for, and since when.
    """

    transport: Any

    def __init__(self, entrance: IncomingLinks, info: ConnectionInfo) -> None:
        super().__init__()
        self.server = ""
        self.knows: frozenset[str] = frozenset()
        self.info = info
        self.session = MuxSession(
            client=False,
            clock=entrance.clock,
            limits=LIMITS,
            accept=lambda: IncomingStream(self),
        )
        self.leaving = False
        self.silent: dict[IncomingStream, float] = {}
        self._listening: IDelayedCall | None = None
        self._entrance = entrance
        self._talk: _ControlStream | None = None
        self._saying: LinkAnnouncer | None = None
        self._timer: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<IncomingLink of {self.server or self.info.remote}>"

    def connectionMade(self) -> None:
        """Wait for its first words."""
        self._entrance.links.add(self)
        tune(self.transport)
        self._timer = self._entrance.clock.callLater(HELLO_TIMEOUT, self._no_hello)
        self.hand_over(self.session)

    def _no_hello(self) -> None:
        self._timer = None
        self.complain("it does not say who it is")
        self.session.abort("it does not say who it is")

    def expect(self, stream: IncomingStream) -> None:
        """A stream is to say what it is for, in L{HELLO_TIMEOUT}."""
        self.silent[stream] = self._entrance.clock.seconds()
        if self._listening is None:
            self._listening = self._entrance.clock.callLater(HELLO_TIMEOUT, self._end_silent)

    def _end_silent(self) -> None:
        """End streams that have said nothing for too long; there is one timer for all of them."""
        self._listening = None
        now = self._entrance.clock.seconds()
        for stream, since in list(self.silent.items()):
            if since + HELLO_TIMEOUT > now:
                self._listening = self._entrance.clock.callLater(
                    since + HELLO_TIMEOUT - now, self._end_silent
                )
                break
            del self.silent[stream]
            self.complain("a stream does not say what it is for")
            stream.transport.abortConnection()

    def opened(self, stream: IncomingStream, message: Mapping[str, Any]) -> None:
        """
        A stream has said what it is for.

        @raise WireError: if that makes no sense.
        """
        if not self.server:
            self._greet(stream, message)
        elif "hello" in message:
            raise WireError("it says hello once more")
        else:
            self._entrance.opened(self, stream, StreamHeader.decode(message))

    def _greet(self, stream: IncomingStream, message: Mapping[str, Any]) -> None:
        claimed = message.get("hello")
        if not isinstance(claimed, str):
            raise WireError("it does not begin with a hello")
        if message.get("v") != LINK_VERSION:
            reason = f"version {message.get('v')!r:.20} is not spoken here"
        elif claimed == self._entrance.id:
            reason = f"there are two servers that are called {claimed}"
        else:
            reason = self._entrance.prove(self.transport, claimed)
        talk = _ControlStream(self)
        if reason:
            stream.give_to(talk)
            talk.transport.write(frame({"v": LINK_VERSION, "refused": reason[:256]}))
            self.complain(reason)
            self.session.close(reason)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.server = claimed
        self.knows = capabilities_of(message)
        self._talk = talk
        self.vouched()
        stream.give_to(talk)
        talk.transport.write(frame({"v": LINK_VERSION, "hello": self._entrance.id, "knows": CAPABILITIES}))
        self._saying = LinkAnnouncer(
            talk.transport, self._entrance.clock, self._entrance.state, self.session.abort
        )
        log.info(
            "fleet: server {server} has linked to this one from {remote}",
            server=claimed,
            remote=self.info.remote,
        )
        if self.leaving:
            self._say_leaving()
        self._entrance.came(self)

    def heard(self, message: Mapping[str, Any]) -> None:
        """The peer has said something."""
        if self._talk is not None:
            self._entrance.heard(self, message)

    def complain(self, reason: str) -> None:
        """Write a line about a peer that does what it should not."""
        self._entrance.complain(self.server or self.info.remote, reason)

    def say(self, message: Mapping[str, Any]) -> None:
        """Tell the peer something, if it has said hello, and knows what that is."""
        if self._saying is not None and is_understood_by(message, self.knows):
            self._saying.say(message)

    def tell(self, agent: Agent) -> None:
        """Tell the peer how an agent is, as it is when the peer takes it."""
        if self._saying is not None:
            self._saying.tell(agent)

    def _say_leaving(self) -> None:
        """Tell the peer at once, in front of all that waits: there is little time."""
        if self._talk is not None and self._talk.transport is not None:
            self._talk.transport.write(frame({"leaving": True}))

    def unheard(self, reason: str) -> None:
        """Nothing can be told to the peer any more."""
        if self._talk is not None:
            self._end_talk()
            if not (self.session.lost or self.session.peer_going or self.session.going):
                self.session.abort(f"it does not listen any more: {reason}")

    def _end_talk(self) -> None:
        self._talk = None
        saying, self._saying = self._saying, None
        if saying is not None:
            saying.stop()

    # IDrainable and IEndable

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return self.session.streams > (self._talk is not None)

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        return "forwarded requests" if self.busy else ""

    def drain(self) -> None:
        """
        Say that this server is about to leave; a moment later, take no more requests.

        Until agents have dialled other servers, this is the only one that reaches them.
        """
        if not self.leaving:
            self.leaving = True
            self._say_leaving()
            self._timer = self._entrance.clock.callLater(NOTICE, self._go_away)

    def _go_away(self) -> None:
        self._timer = None
        self.session.go_away()

    def end(self, reason: str) -> None:
        """See L{IEndable}."""
        self.session.close(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The peer is gone."""
        for timer in (self._timer, self._listening):
            if timer is not None and timer.active():
                timer.cancel()
        self._end_talk()
        self._entrance.links.discard(self)
        super().connectionLost(reason)
        if self.server:
            log.info(
                "fleet: the link of server {server} has ended: {reason}",
                server=self.server,
                reason=loss(reason),
            )
            self._entrance.went(self)


class IncomingLinks:
    """
    All connections that other servers have dialled.

    @ivar id: what this server is called.
    @ivar links: those connections.
    @ivar state: says how an agent is, to be told to all.
    @ivar heard: called with what they say.
    """

    def __init__(
        self,
        server_id: str,
        clock: IReactorTime,
        prove: Callable[[Any, str], str],
        forward: Callable[[IncomingLink, IncomingStream, StreamHeader], object],
        greet: Callable[[IncomingLink], object],
        state: Callable[[Agent], Mapping[str, Any]],
        hear: Callable[[IncomingLink, Mapping[str, Any]], object] = lambda link, message: None,
    ) -> None:
        """
        @param prove: says why a connection's peer is not a certain server; empty if it is.
        @param forward: takes over a stream for a request or session.
        @param greet: called with each link that has said hello.
        @param state: the message that says how an agent is.
        @param hear: called with what peers say after that; L{WireError} ends the link.
        """
        self.id = server_id
        self.clock = clock
        self.prove = prove
        self.links: set[IncomingLink] = set()
        self.state = state
        self._forward = forward
        self._greet = greet
        self.heard = hear
        self._complaints = Throttle(clock, _LOG_RATE, _LOG_BURST)

    def __call__(self, info: ConnectionInfo) -> IProtocol:
        """Build the protocol of a connection, as filters of listeners do."""
        return IncomingLink(self, info)

    def opened(self, link: IncomingLink, stream: IncomingStream, header: StreamHeader) -> None:
        """A stream is for a request or session."""
        self._forward(link, stream, header)

    def came(self, link: IncomingLink) -> None:
        """A server has linked."""
        self._greet(link)

    def went(self, link: IncomingLink) -> None:
        """A server's link has ended."""

    def say(self, message: Mapping[str, Any]) -> None:
        """Tell all servers something that know what it is."""
        for link in list(self.links):
            link.say(message)

    def tell(self, agent: Agent) -> None:
        """Tell all servers how an agent is."""
        for link in list(self.links):
            link.tell(agent)

    def complain(self, who: str, reason: str) -> None:
        """Write a line about a peer that does what it should not."""
        if self._complaints.allow():
            log.warn(
                "fleet: the link of {who} is refused, or ended: {reason}{suppressed}",
                who=who,
                reason=reason,
                suppressed=self._complaints.suppressed,
            )

    def close(self, reason: str) -> None:
        """End all of them now."""
        for link in list(self.links):
            link.session.abort(reason)
