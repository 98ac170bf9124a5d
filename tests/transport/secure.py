"""
TLS for the tests of what protocols may expect of a connection.

The other end is a plain socket with OpenSSL in front of it, made to look like a
plain socket that does nothing by itself.
"""

from __future__ import annotations

__all__ = ["Secure", "SecureSocket"]

import contextlib
import socket
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from reverseproxy.tls import ClientTls, ServerTls, wrap_client, wrap_server
from reverseproxy.tls import transport as tls_transport
from reverseproxy.transport.closing import CloseLimits
from reverseproxy.transport.stream import StreamTransport
from tests.certs import Certificates
from tests.transport.contract import CallableFactory, Contract, Recorder


class SecureSocket:
    """A socket that does not block, with TLS."""

    def __init__(self, context: SSL.Context, plain: socket.socket, server: bool) -> None:
        self.plain = plain
        # Otherwise a ticket may come so late that nobody reads it any more.
        if plain.family != socket.AF_UNIX:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = SSL.Connection(context, plain)
        self.established = False
        self.resets = False
        if server:
            self.tls.set_accept_state()
        else:
            self.tls.set_connect_state()

    def shake_hands(self) -> bool:
        """Do what can be done of the handshake; say whether it is complete."""
        with contextlib.suppress(SSL.WantReadError, SSL.WantWriteError):
            self.tls.do_handshake()
            self.established = True
        return self.established

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self.resets = self.resets or option == socket.SO_LINGER
        self.plain.setsockopt(level, option, value)

    def getpeername(self) -> Any:
        return self.plain.getpeername()

    def getsockname(self) -> Any:
        return self.plain.getsockname()

    def recv(self, size: int) -> bytes:
        try:
            return self.tls.recv(size)
        except (SSL.WantReadError, SSL.WantWriteError):
            raise BlockingIOError from None
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as error:
            raise ConnectionResetError(repr(error)) from error

    def send(self, data: Any) -> int:
        try:
            return self.tls.send(data) if data else 0
        except (SSL.WantReadError, SSL.WantWriteError):
            raise BlockingIOError from None
        except SSL.Error as error:
            raise BrokenPipeError from error

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.tls.shutdown()

    def close(self) -> None:
        if not self.resets and self.plain.fileno() >= 0:
            with contextlib.suppress(SSL.Error):
                self.tls.shutdown()
        self.plain.close()


class Secure(Contract):
    """What connections over TLS are tested with."""

    def setUp(self) -> None:
        super().setUp()
        # Peers that do not close have nothing to send either.
        self.patch(tls_transport, "CLOSE_LIMITS", CloseLimits(linger=0.05, stall=60.0))
        certs = Certificates(Path(self.mktemp()))
        self.server_tls = ServerTls([certs.server_context()])
        self.client_tls = ClientTls(certs.client_context(), "localhost")

    def listen(self, build: Any) -> Any:
        """Listen with the reactor; return where."""
        return self.listen_with(wrap_server(CallableFactory(build), self.server_tls, clock=self.reactor))

    def listen_with(self, factory: Any) -> Any:
        return super().listen(lambda: factory.buildProtocol(None))

    async def connect(self, kind: Any = Recorder, small: bool = False) -> tuple[Any, Any]:
        """Connect a protocol of the reactor and a L{SecureSocket}."""
        protocol = kind()
        self.protocols.append(protocol)
        plain = self.socket()
        if small:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if self.server:
            plain.connect_ex(self.listen(lambda: protocol))
            context = self.client_tls.clientConnectionForTLS(None).get_context()
            peer = SecureSocket(context, plain, server=False)
        else:
            listening = self.listening_socket()
            if small:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            factory = wrap_client(CallableFactory(lambda: protocol), self.client_tls)
            self.dial(listening.getsockname(), lambda: factory.buildProtocol(None))
            await self.until(lambda: protocol.events)
            plain.close()
            plain = listening.accept()[0]
            plain.setblocking(False)
            context = self.server_tls.serverConnectionForTLS(None).get_context()
            peer = SecureSocket(context, plain, server=True)
        self.peers.append(peer)  # type: ignore[arg-type]
        await self.until(lambda: peer.shake_hands() and protocol.transport.established)
        # Servers send tickets, and who closes a socket with something unread resets the connection.
        await self.turn()
        with contextlib.suppress(SSL.Error):
            peer.tls.recv(1, socket.MSG_PEEK)
        self.assertEqual(isinstance(protocol.transport.transport, StreamTransport), self.fast)
        if small:
            protocol.transport.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return protocol, peer
