"""Tests for L{reverseproxy.net.tcp_info}, over real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.net.tcp_info import was_heard
from tests.net.test_tcp_options import HandleOnly


class HeardTests(SynchronousTestCase):
    """What has come is known to the kernel, whether or not anybody has read it."""

    def check(self, ours: socket.socket, theirs: socket.socket) -> None:
        for each in (ours, theirs):
            self.addCleanup(each.close)
        transport: Any = ProtocolWrapper(WrappingFactory(Factory()), Protocol())  # as TLS has it
        transport.transport = HandleOnly(ours)
        transport.transport.fileno = ours.fileno
        self.assertFalse(was_heard(transport, 0.0))
        theirs.send(b"x")
        self.assertTrue(was_heard(transport, 0.0))
        ours.recv(1)
        self.assertFalse(was_heard(transport, 0.0))
        if ours.family == socket.AF_INET:
            self.assertTrue(was_heard(transport, 60.0))
        ours.close()
        self.assertFalse(was_heard(transport, 60.0))

    def test_tcp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            self.check(ours, server.accept()[0])

    def test_unix(self) -> None:
        self.check(*socket.socketpair())

    def test_no_socket(self) -> None:
        self.assertFalse(was_heard(StringTransport(), 60.0))
