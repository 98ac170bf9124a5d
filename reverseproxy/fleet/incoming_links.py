"""
Links that other servers have dialled, over which they forward requests to this server's agents.

L{reverseproxy.fleet.outgoing_link} describes the messages. A peer has to prove that it is a server of
the fleet before anything else that it sends is processed.
"""

from __future__ import annotations

__all__ = ["IncomingLink", "IncomingLinks"]

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
from reverseproxy.fleet.incoming_stream import IncomingStream, SilentStreams
from reverseproxy.fleet.link_frames import (
    CAPABILITIES,
    LINK_VERSION,
    LinkFrameReader,
    StreamHeader,
    capabilities_of,
    frame,
    is_understood_by,
)
from reverseproxy.fleet.outgoing_link import HELLO_TIMEOUT, LIMITS
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable
from reverseproxy.logs import Throttle, loss
from reverseproxy.mux.session import MuxSession
from reverseproxy.net.tcp_options import tune

log = Logger()

NOTICE: Final = 1.5
"""Seconds for which a server that is about to leave still accepts streams after it has announced that."""

_LOG_RATE: Final = 1.0
_LOG_BURST: Final = 20


class _AcceptedControlStream(Protocol):
    """The control stream of a link, at the end that was dialled."""

    transport: Any

    def __init__(self, link: IncomingLink) -> None:
        self._link = link
        self._reader = LinkFrameReader()

    def dataReceived(self, data: bytes) -> None:
        """Parse messages, and pass them on."""
        try:
            self._reader.feed(data)
            while (message := self._reader.next()) is not None:
                self._link.received(message)
        except WireError as error:
            self._link.complain(str(error))
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the link that it can't send messages any more."""
        self._link.control_lost(loss(reason))


@implementer(IDrainable, IEndable)
class IncomingLink(Handover):
    """
    A connection that another server has dialled.

    @ivar server: the peer's id once it has proved it; empty before.
    @ivar capabilities: those of the peer; see
        L{CAPABILITIES<reverseproxy.fleet.link_frames.CAPABILITIES>}.
    @ivar info: the connection's addresses.
    @ivar session: the session whose streams it carries.
    @ivar leaving: whether this server has announced that it is about to leave.
    @ivar silent: streams whose first message has not come.
    """

    transport: Any

    def __init__(self, links: IncomingLinks, info: ConnectionInfo) -> None:
        super().__init__()
        self.server = ""
        self.capabilities: frozenset[str] = frozenset()
        self.info = info
        self.session = MuxSession(
            client=False,
            clock=links.clock,
            limits=LIMITS,
            accept=lambda: IncomingStream(self),
        )
        self.leaving = False
        self.silent = SilentStreams(links.clock, self._stream_is_silent)
        self._links = links
        self._control: _AcceptedControlStream | None = None
        self._announcer: LinkAnnouncer | None = None
        self._timer: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<IncomingLink of {self.server or self.info.remote}>"

    def connectionMade(self) -> None:
        """Start the session, and expect the peer's hello."""
        self._links.all.add(self)
        tune(self.transport)
        self._timer = self._links.clock.callLater(HELLO_TIMEOUT, self._no_hello)
        self.hand_over(self.session)

    def _no_hello(self) -> None:
        self._timer = None
        self.complain("it does not say who it is")
        self.session.abort("it does not say who it is")

    def _stream_is_silent(self, stream: IncomingStream) -> None:
        self.complain("a stream does not say what it is for")
        stream.transport.abortConnection()

    def opened(self, stream: IncomingStream, message: Mapping[str, Any]) -> None:
        """
        Process the first message of a stream.

        @raise WireError: if it is malformed.
        """
        if not self.server:
            self._greet(stream, message)
        elif "hello" in message:
            raise WireError("it says hello once more")
        else:
            self._links.forward(self, stream, StreamHeader.decode(message))

    def _greet(self, stream: IncomingStream, message: Mapping[str, Any]) -> None:
        claimed = message.get("hello")
        if not isinstance(claimed, str):
            raise WireError("it does not begin with a hello")
        if message.get("v") != LINK_VERSION:
            reason = f"version {message.get('v')!r:.20} is not spoken here"
        elif claimed == self._links.id:
            reason = f"there are two servers that are called {claimed}"
        else:
            reason = self._links.prove(self.transport, claimed)
        control = _AcceptedControlStream(self)
        if reason:
            stream.give_to(control)
            control.transport.write(frame({"v": LINK_VERSION, "refused": reason[:256]}))
            self.complain(reason)
            self.session.close(reason)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.server = claimed
        self.capabilities = capabilities_of(message)
        self._control = control
        self.vouched()
        stream.give_to(control)
        control.transport.write(frame({"v": LINK_VERSION, "hello": self._links.id, "knows": CAPABILITIES}))
        self._announcer = LinkAnnouncer(
            control.transport, self._links.clock, self._links.state, self.session.abort
        )
        log.info(
            "fleet: server {server} has linked to this one from {remote}",
            server=claimed,
            remote=self.info.remote,
        )
        if self.leaving:
            self._say_leaving()
        self._links.greet(self)

    def received(self, message: Mapping[str, Any]) -> None:
        """Process a message on the control stream."""
        if self._control is not None:
            self._links.receive(self, message)

    def complain(self, reason: str) -> None:
        """Log that the peer violates the protocol."""
        self._links.complain(self.server or self.info.remote, reason)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, if the peer has said hello and has the capability that it needs."""
        if self._announcer is not None and is_understood_by(message, self.capabilities):
            self._announcer.send(message)

    def announce(self, agent: Agent) -> None:
        """Send the state of an agent, as it is by the time that the peer reads it."""
        if self._announcer is not None:
            self._announcer.announce(agent)

    def _say_leaving(self) -> None:
        """Send the announcement ahead of all messages that wait: there is little time."""
        if self._control is not None and self._control.transport is not None:
            self._control.transport.write(frame({"leaving": True}))

    def control_lost(self, reason: str) -> None:
        """End the link, as no message can be sent any more, unless it is ending anyway."""
        if self._control is not None:
            self._end_control()
            if not (self.session.lost or self.session.peer_going or self.session.going):
                self.session.abort(f"it does not listen any more: {reason}")

    def _end_control(self) -> None:
        self._control = None
        announcer, self._announcer = self._announcer, None
        if announcer is not None:
            announcer.stop()

    # IDrainable and IEndable

    @property
    def busy(self) -> bool:
        """Whether forwarded requests are in progress."""
        return self.session.streams > (self._control is not None)

    @property
    def doing(self) -> str:
        """What is in progress; see L{IEndable}."""
        return "forwarded requests" if self.busy else ""

    def drain(self) -> None:
        """
        Announce that this server is about to leave, and accept no more streams after L{NOTICE}.

        Until its agents have dialled other servers, this server is the only one that reaches them.
        """
        if not self.leaving:
            self.leaving = True
            self._say_leaving()
            self._timer = self._links.clock.callLater(NOTICE, self._go_away)

    def _go_away(self) -> None:
        self._timer = None
        self.session.go_away()

    def end(self, reason: str) -> None:
        """Close the link when its streams have ended; see L{IEndable}."""
        self.session.close(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel all timers, and forget the link."""
        self.silent.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._end_control()
        self._links.all.discard(self)
        super().connectionLost(reason)
        if self.server:
            log.info(
                "fleet: the link of server {server} has ended: {reason}",
                server=self.server,
                reason=loss(reason),
            )


class IncomingLinks:
    """
    All links that other servers have dialled.

    @ivar id: this server's id.
    @ivar clock: the reactor.
    @ivar all: the connections.
    @ivar prove: returns why a connection's peer is not the server with an id; empty if it is.
    @ivar forward: serves a stream that is opened for a request or session.
    @ivar greet: called with each link when its peer has been identified.
    @ivar receive: called with each further message; L{WireError} ends the link.
    @ivar state: returns the message that announces an agent's state.
    """

    def __init__(
        self,
        server_id: str,
        clock: IReactorTime,
        prove: Callable[[Any, str], str],
        forward: Callable[[IncomingLink, IncomingStream, StreamHeader], object],
        greet: Callable[[IncomingLink], object],
        state: Callable[[Agent], Mapping[str, Any]],
        receive: Callable[[IncomingLink, Mapping[str, Any]], object] = lambda link, message: None,
    ) -> None:
        """The parameters are those of the attributes."""
        self.id = server_id
        self.clock = clock
        self.prove = prove
        self.all: set[IncomingLink] = set()
        self.state = state
        self.forward = forward
        self.greet = greet
        self.receive = receive
        self._complaints = Throttle(clock, _LOG_RATE, _LOG_BURST)

    def __call__(self, info: ConnectionInfo) -> IProtocol:
        """Build the protocol of a connection, as network filters of listeners do."""
        return IncomingLink(self, info)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to all servers that have the capability that it needs."""
        for link in list(self.all):
            link.send(message)

    def announce(self, agent: Agent) -> None:
        """Send the state of an agent to all servers."""
        for link in list(self.all):
            link.announce(agent)

    def complain(self, who: str, reason: str) -> None:
        """Log that a peer violates the protocol, at a limited rate."""
        if self._complaints.allow():
            log.warn(
                "fleet: the link of {who} is refused, or ended: {reason}{suppressed}",
                who=who,
                reason=reason,
                suppressed=self._complaints.suppressed,
            )

    def close(self, reason: str) -> None:
        """Abort all links."""
        for link in list(self.all):
            link.session.abort(reason)
