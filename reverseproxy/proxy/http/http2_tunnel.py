"""
Another protocol on a stream of HTTP/2, such as WebSocket.

It begins with an extended CONNECT, which the rest of the project treats like an
Upgrade in HTTP/1: if it is accepted, the response is 101.  Between ends of this
project it carries everything that an Upgrade does
(L{reverseproxy.wire.http2.upgrades}).  With other peers it is for WebSockets only,
by RFC 8441: requests get the key that HTTP/1 needs and HTTP/2 lacks, and a 101
becomes a 200.

The stream is the transport of a L{RelayEnd} then.
"""

from __future__ import annotations

__all__ = ["Http2Tunnel", "accepts", "answer_to_connect", "switching_protocols", "websocket_request"]

import os
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from sys import maxsize
from typing import Any, Final

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from reverseproxy.proxy.http.http2_connection import Http2Protocol
from reverseproxy.proxy.http.interfaces import IUpgraded
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.transport.backlog import NOTHING, Backlog, backlog_of
from reverseproxy.wire.http.fields import Headers
from reverseproxy.wire.http.message import End, Request, Response
from reverseproxy.wire.http.websocket import FrameTracker
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.http2.responses import response_fields
from reverseproxy.wire.http2.upgrades import connect_protocol

_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_UPGRADE: Final = frozenset({b"upgrade"})


def _accept(key: bytes) -> bytes:
    """Return the C{Sec-WebSocket-Accept} of a key (RFC 6455 4.2.2)."""
    return b64encode(sha1(key + _MAGIC, usedforsecurity=False).digest())


def _value(headers: Headers, name: bytes) -> bytes | None:
    for field, value in headers:
        if field.lower() == name:
            return value
    return None


def websocket_request(head: Request) -> Request:
    """Add a key to a request for a WebSocket that came without one."""
    if head.upgrade.lower() == b"websocket" and _value(head.headers, b"sec-websocket-key") is None:
        head.headers.append((b"sec-websocket-key", b64encode(os.urandom(16))))
    return head


def accepts(request: Request, response: Response) -> bool:
    """Return whether a response accepts a request for a WebSocket."""
    key = _value(request.headers, b"sec-websocket-key")
    return key is None or _value(response.headers, b"sec-websocket-accept") == _accept(key)


def answer_to_connect(head: Response) -> Headers:
    """Turn a 101 into the response to an extended CONNECT."""
    fields = [field for field in response_fields(head) if field[0] != b"sec-websocket-accept"]
    fields[0] = (b":status", b"200")
    return fields


def switching_protocols(request: Request, response: Response) -> Response:
    """Turn a host's response to an extended CONNECT into a 101."""
    dropped = (b"content-length", b"sec-websocket-accept")
    headers = [field for field in response.headers if field[0] not in dropped]
    headers.append((b"upgrade", connect_protocol(request)))
    key = _value(request.headers, b"sec-websocket-key")
    if key is not None:
        headers.append((b"sec-websocket-accept", _accept(key)))
    return Response(101, headers, options=_UPGRADE)


class Http2Tunnel:
    """
    The transport of a L{RelayEnd} on a stream.

    @ivar relay: the end of the relay.
    @ivar disconnecting: whether it is being closed.
    """

    def __init__(self, connection: Http2Protocol, number: int) -> None:
        self.relay = RelayEnd(connection.clock)
        self.disconnecting = False
        self._other: RelayEnd | None = None
        self._connection = connection
        self._http2 = connection.http2
        self._number = number
        self._producer: Any = None
        self._producer_paused = False
        self._write_closed = False
        self._lost = False
        Protocol.makeConnection(self.relay, self)

    def join(
        self,
        client: IUpgraded,
        closed: Callable[[Failure], None],
        client_closed: Callable[[Failure], None],
        websocket: bool = False,
    ) -> None:
        """
        Couple this stream with a host's connection.

        @param closed: called when the stream is over.
        @param client_closed: called when the host's connection is.
        @param websocket: whether it is a WebSocket.
        """
        other = self._other = client.become_relay(self._connection.clock, client.take_rest())
        self.relay.on_close = closed
        other.on_close = client_closed
        if websocket:
            other.frames = FrameTracker()
        couple(self.relay, other)
        client.rebind(other.dataReceived)

    @property
    def other(self) -> RelayEnd | None:
        """The relay's end at the host, once both are joined."""
        return self._other

    # what the connection tells us

    def received(self, event: bytes | End) -> None:
        """Take bytes of the peer, or the end of the stream."""
        if self._lost:
            return
        if type(event) is bytes:
            if not self.disconnecting:
                self.relay.dataReceived(event)
            return
        if not self.disconnecting:
            self.relay.readConnectionLost()
        # Not before: what comes with the end is handed on piece by piece, and the stream has ended by then.
        self.look()

    def drained(self) -> None:
        """The stream's buffer has room."""
        if self._producer_paused:
            self._producer_paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def look(self) -> None:
        """Check whether both directions have ended."""
        if not self._lost and not self._http2.is_open(self._number):
            self._lose(ConnectionDone())

    def lose(self, reason: str) -> None:
        """End the relay, as the stream was reset or the connection is lost."""
        self._lose(ConnectionLost(reason))

    def _lose(self, reason: Exception) -> None:
        if not self._lost:
            self._lost = True
            self._producer = None
            self.relay.connectionLost(Failure(reason))

    @property
    def waiting(self) -> int:
        """How many bytes of the peer are buffered for the other side, at most."""
        return maxsize if self._producer is None else backlog_of(self._producer).size

    def backlog(self) -> Backlog:
        """See L{reverseproxy.transport.backlog.backlog_of}."""
        return NOTHING if self._lost else self._connection.backlog_of(self._number)

    # ITransport, as far as a relay needs it

    def write(self, data: bytes) -> None:
        """Send bytes to the peer."""
        self._http2.send_data(self._number, data)
        if not self._producer_paused and self._producer is not None and self._http2.is_full(self._number):
            self._producer_paused = True
            self._producer.pauseProducing()
        self._connection.flush()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Set what pauses while the stream's buffer is full."""
        self._producer = producer
        self._producer_paused = False

    def unregisterProducer(self) -> None:
        """Forget what pauses."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Stop opening the peer's window."""
        self._http2.hold(self._number)

    def resumeProducing(self) -> None:
        """Open the peer's window again."""
        self._connection.release(self._number)

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """End our direction of the stream."""
        if self._write_closed or self._lost:
            return
        self._write_closed = True
        self._http2.send_end(self._number, [])
        self._connection.flush()
        self.relay.writeConnectionLost()
        self.look()

    def loseConnection(self) -> None:
        """Close the stream once what was written is sent and the peer has ended its direction."""
        if not self.disconnecting:
            self.disconnecting = True
            # What comes still is dropped, but must not keep the peer from its end.
            self.resumeProducing()
            self.loseWriteConnection()
            self.look()

    def abortConnection(self) -> None:
        """Reset the stream."""
        self.disconnecting = True
        self._http2.reset(self._number, ErrorCode.CANCEL)
        self._connection.flush()
        self._lose(ConnectionLost("aborted"))

    def getPeer(self) -> IAddress:
        """Return the peer's address, which is the connection's."""
        address: IAddress = self._connection.transport.getPeer()
        return address

    def getHost(self) -> IAddress:
        """Return our address, which is the connection's."""
        address: IAddress = self._connection.transport.getHost()
        return address
