"""Tests for L{reverseproxy.listener}, over real sockets."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import ConnectionAborted
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy import listener as listener_module
from reverseproxy.addresses import split_host_port
from reverseproxy.cluster.handover import Handover
from reverseproxy.config.models import ListenerConfig
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink, IDrainable, IEndable, IExpendable
from reverseproxy.limits.connection_limit import Descriptors
from reverseproxy.listener import Listener, ListenerFailed, binding
from reverseproxy.listener.connection_limiter import PAUSE, ConnectionLimiter
from reverseproxy.net.formatting import format_address
from reverseproxy.tls import ClientTls, ServerTls, client_endpoint
from tests.certs import Certificates
from tests.net.test_tcp_options import expected, tuning
from tests.tunnel.logged import capture


class AddressTests(SynchronousTestCase):
    def test_format(self) -> None:
        for address, text in (
            (IPv4Address("TCP", "10.0.0.7", 80), "10.0.0.7:80"),
            (IPv6Address("TCP", "::1", 80), "[::1]:80"),
            (IPv6Address("TCP", "fe80::1%lo", 80), "[fe80::1%lo]:80"),
            (IPv6Address("TCP", "::ffff:10.0.0.7", 80), "10.0.0.7:80"),
            (UNIXAddress("/run/socket"), "unix:/run/socket"),
            (UNIXAddress(None), "unix:"),
        ):
            self.assertEqual(format_address(address), text)
        other = HostnameAddress(b"example.com", 80)
        self.assertEqual(format_address(other), str(other))


class Served(Protocol):
    """What the listener's filter builds; it answers in capitals, and can't drain."""

    transport: Any

    def __init__(self, info: ConnectionInfo) -> None:
        self.info = info
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data.upper())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


@implementer(IDrainable)
class Draining(Served):
    """The same, but it can."""

    busy = False

    def drain(self) -> None:
        if not self.busy:
            self.transport.loseConnection()


class Filter:
    """A listener's filter."""

    def __init__(self, make: Callable[[ConnectionInfo], Any] = Served) -> None:
        self.make = make
        self.built: list[Any] = []

    def __call__(self, info: ConnectionInfo) -> Any:
        protocol = self.make(info)
        self.built.append(protocol)
        return protocol


class Client(Protocol):
    """Somebody who connects."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.reason: Failure | None = None
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.closed.callback(None)


class ListenerTestCase(TestCase):
    def setUp(self) -> None:
        self.filter = Filter()

    def listener(
        self,
        build: Any = ...,
        tls: ServerTls | None = None,
        limiter: ConnectionLimiter | None = None,
        **config: Any,
    ) -> Listener:
        """A listener that is bound."""
        options = {"name": "front", "address": "127.0.0.1:0", "bind_port": True, **config}
        build = self.filter if build is ... else build
        listener = Listener(ListenerConfig(**options), build, reactor, tls, limiter=limiter)
        self.addCleanup(listener.stopService)
        listener.privilegedStartService()
        listener.startService()  # type: ignore[no-untyped-call]
        return listener

    def refused(self, **config: Any) -> str:
        """The listener can't be bound: why."""
        return str(self.assertRaises(ListenerFailed, self.listener, **config))

    def endpoint(self, listener: Listener) -> IStreamClientEndpoint:
        assert listener.bound is not None
        if listener.bound.startswith("unix:"):
            return UNIXClientEndpoint(reactor, listener.bound.removeprefix("unix:"))
        host, port = split_host_port(listener.bound)
        endpoint = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        return endpoint(reactor, host, port)

    async def connect(self, listener: Listener, tls: ClientTls | None = None) -> Client:
        """Connect, and wait until both ends know."""
        endpoint = self.endpoint(listener)
        count = listener.connections
        client = await connectProtocol(endpoint if tls is None else client_endpoint(endpoint, tls), Client())
        self.addCleanup(self.hang_up, client)
        if not self.silent:
            await self.until(lambda: listener.connections > count or client.closed.called)
        return client

    silent = False

    async def hang_up(self, client: Client) -> None:
        if not client.closed.called:
            client.transport.abortConnection()
            await client.closed

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for the reactor to bring something about; trial's timeout is the deadline."""
        while not true():
            await deferLater(reactor, 0.001)

    async def echoes(self, client: Client, word: bytes = b"hello") -> None:
        """Somebody serves this client."""
        client.transport.write(word)
        await self.until(lambda: client.received == word.upper())


class BindTests(ListenerTestCase):
    def test_the_interface(self) -> None:
        listener = Listener(ListenerConfig(name="front", address=":0"), self.filter, reactor)
        verifyObject(IConnectionSink, listener)

    async def test_a_port_of_the_kernel_s_choice(self) -> None:
        with capture() as events:
            listener = self.listener()
        assert listener.bound is not None
        self.assertRegex(listener.bound, r"^127\.0\.0\.1:[1-9]\d*$")
        self.assertEqual(events.text(), f"listener front listening on {listener.bound}")
        client = await self.connect(listener)
        await self.echoes(client)
        [served] = self.filter.built
        peer = client.transport.getHost()
        self.assertEqual(served.info, ConnectionInfo(remote=f"127.0.0.1:{peer.port}", local=listener.bound))
        self.assertEqual(tuning(served.transport.getHandle()), expected(30, 10, 3, 0))

    async def test_all_addresses(self) -> None:
        """Without a host, clients come by IPv4 and by IPv6, as with Go."""
        for reuseport in (False, True):
            listener = self.listener(address=":0", reuseport=reuseport)
            assert listener.bound is not None
            port = split_host_port(listener.bound)[1]
            for endpoint in (
                TCP4ClientEndpoint(reactor, "127.0.0.1", port),
                TCP6ClientEndpoint(reactor, "::1", port),
            ):
                client = await connectProtocol(endpoint, Client())
                await self.echoes(client)
            info = self.filter.built[-2].info
            self.assertEqual(info.local, f"127.0.0.1:{port}")
            self.assertRegex(info.remote, r"^127\.0\.0\.1:")

    async def test_all_addresses_without_ipv6(self) -> None:
        made = socket.socket

        def make(family: int, *rest: Any) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            return made(family, *rest)

        self.patch(binding.socket, "socket", make)
        listener = self.listener(address=":0")
        self.assertRegex(listener.bound or "", r"^0\.0\.0\.0:")

    async def test_connections_are_counted(self) -> None:
        listener = self.listener()
        first = await self.connect(listener)
        second = await self.connect(listener)
        self.assertEqual(listener.connections, 2)
        first.transport.loseConnection()
        second.transport.abortConnection()
        await self.until(lambda: listener.connections == 0)
        self.assertTrue(all(served.reason for served in self.filter.built))

    async def test_ipv6(self) -> None:
        listener = self.listener(address="[::1]:0")
        assert listener.bound is not None
        self.assertRegex(listener.bound, r"^\[::1\]:\d+$")
        client = await self.connect(listener)
        await self.echoes(client)
        self.assertEqual(self.filter.built[0].info.remote_ip, "::1")

    async def test_every_interface(self) -> None:
        listener = self.listener(address=":0")
        _, port = split_host_port(listener.bound or "")
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Client())
        self.addCleanup(self.hang_up, client)
        await self.echoes(client)

    async def test_no_port_is_bound_for_a_hosting_listener(self) -> None:
        listener = self.listener(bind_port=False)
        self.assertIsNone(listener.bound)
        info = ConnectionInfo("10.0.0.1:9999", "192.168.0.2:50000", reverse=True)
        self.assertIs(listener.build_protocol(info), self.filter.built[0])
        await listener.drain(10)

    async def test_bound_without_privileges(self) -> None:
        config = ListenerConfig(name="front", address="127.0.0.1:0", bind_port=True)
        listener = Listener(config, self.filter, reactor)
        listener.startService()
        self.addCleanup(listener.stopService)
        self.assertIsNotNone(listener.bound)
        await self.connect(listener)

    async def test_bound_once(self) -> None:
        listener = self.listener()
        bound = listener.bound
        listener.privilegedStartService()
        self.assertEqual(listener.bound, bound)
        await self.connect(listener)

    def test_an_address_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.assertEqual(
                self.refused(address=address),
                f"listener front can't listen on {address}: Address already in use; stop the process that "
                "has it, or choose another address",
            )

    def test_an_address_of_another_machine(self) -> None:
        self.assertIn("this machine does not have this IP address", self.refused(address="192.0.2.1:0"))

    async def test_two_share_a_port(self) -> None:
        first = self.listener(reuseport=True)
        second = self.listener(reuseport=True, address=first.bound)
        self.assertEqual(first.bound, second.bound)
        await first.stopService()
        await self.echoes(await self.connect(second))
        self.assertIn("Address already in use", self.refused(address=second.bound))

    async def test_a_shared_port_of_ipv6(self) -> None:
        listener = self.listener(reuseport=True, address="[::1]:0")
        self.assertRegex(listener.bound or "", r"^\[::1\]:\d+$")
        await self.echoes(await self.connect(listener))

    def test_a_shared_port_that_is_not_shared(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.assertIn("Address already in use; ", self.refused(address=address, reuseport=True))


class UnixTests(ListenerTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Not in trial's own directory: the path of a socket must be short.
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "socket"

    def unix(self, **config: Any) -> Listener:
        return self.listener(address=str(self.path), network="unix", **config)

    def failure(self) -> str:
        return str(self.assertRaises(ListenerFailed, self.unix))

    async def test_a_socket(self) -> None:
        listener = self.unix()
        self.assertEqual(listener.bound, f"unix:{self.path}")
        await self.echoes(await self.connect(listener))
        [served] = self.filter.built
        self.assertEqual((served.info.remote, served.info.local), ("unix:", f"unix:{self.path}"))
        await listener.stopService()
        self.assertEqual(os.listdir(self.path.parent), [])

    async def test_with_a_prefix(self) -> None:
        listener = self.listener(address=f"unix:{self.path}", network="unix")
        self.assertEqual(listener.bound, f"unix:{self.path}")
        await self.connect(listener)

    async def test_tls(self) -> None:
        certs = Certificates(self.mktemp())
        listener = self.unix(tls=ServerTls([certs.server_context()]))
        await self.echoes(await self.connect(listener, ClientTls(certs.client_context(), "localhost")))

    async def test_what_a_killed_process_left_behind(self) -> None:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(self.path))
            killed.listen()
        await self.echoes(await self.connect(self.unix()))

    async def test_a_living_one_is_left_alone(self) -> None:
        listener = self.unix()
        self.assertEqual(
            self.failure(),
            f"listener front can't listen on {self.path}: another process listens there; stop the process "
            "that has it, or choose another address",
        )
        await self.echoes(await self.connect(listener))

    def test_a_living_one_that_is_too_busy_to_accept(self) -> None:
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(str(self.path))
            busy.listen(0)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(str(self.path))
                self.assertIn("another process listens there", self.failure())

    def test_something_else_is_left_alone(self) -> None:
        self.path.write_text("precious")
        self.assertIn("it is no socket; move it away, or choose another path", self.failure())
        self.assertEqual(self.path.read_text(), "precious")

    def test_no_directory(self) -> None:
        self.path = self.path / "deeper" / "socket"
        self.assertIn("No such file or directory; create the directory", self.failure())

    def test_a_path_that_is_too_long(self) -> None:
        self.path = self.path.with_name("x" * 200)
        self.assertIn("too long", self.failure())


class FilterTests(ListenerTestCase):
    async def test_no_filter(self) -> None:
        listener = self.listener(build=None)
        with capture() as events:
            client = await self.connect(listener)
            await client.closed
        self.assertRegex(events.text(), r"front: 127\.0\.0\.1:\d+ closed: no filter serves here")
        await self.until(lambda: listener.connections == 0)

    async def fails(self, listener: Listener) -> str:
        """One connection is closed, with a reason in the log, and the next one is served."""
        with capture() as events:
            client = await self.connect(listener)
            client.transport.write(b"x")
            await client.closed
            await self.until(lambda: listener.connections == 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.filter.make = Served
        await self.echoes(await self.connect(listener))
        return events.text()

    async def test_a_filter_that_raises(self) -> None:
        def make(info: ConnectionInfo) -> Any:
            raise ZeroDivisionError

        self.filter.make = make
        self.assertRegex(
            await self.fails(self.listener()),
            r"listener front: the protocol of the connection from 127\.0\.0\.1:\d+ failed",
        )

    async def test_a_protocol_that_raises_when_it_is_connected(self) -> None:
        class Failing(Served):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        self.filter.make = Failing
        self.assertIn("listener front: the protocol", await self.fails(self.listener()))
        reason = self.filter.built[0].reason
        assert reason is not None
        reason.trap(ConnectionAborted)

    async def test_a_protocol_that_raises_when_it_is_connected_over_tls(self) -> None:
        class Failing(Served):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        certs = Certificates(self.mktemp())
        listener = self.listener(tls=ServerTls([certs.server_context()]))
        self.filter.make = Failing
        client = await self.connect(listener, ClientTls(certs.client_context(), "localhost"))
        await client.closed
        await self.until(lambda: listener.connections == 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_a_protocol_that_raises_when_it_receives(self) -> None:
        class Failing(Served):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        self.filter.make = Failing
        await self.fails(self.listener())
        self.assertIsNotNone(self.filter.built[0].reason)

    async def test_a_protocol_that_raises_when_it_is_lost(self) -> None:
        class Failing(Served):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                raise ZeroDivisionError

        self.filter.make = Failing
        listener = self.listener()
        client = await self.connect(listener)
        client.transport.loseConnection()
        await listener.drain(10)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TlsTests(ListenerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.certs = Certificates(self.mktemp())

    def server(self, **more: Any) -> ServerTls:
        return ServerTls([self.certs.server_context(**more)])

    def client(self, **more: Any) -> ClientTls:
        return ClientTls(self.certs.client_context(**more), "localhost")

    async def test_tls(self) -> None:
        with capture() as events:
            listener = self.listener(tls=self.server())
        self.assertIn("(TLS)", events.text())
        await self.echoes(await self.connect(listener, self.client()))
        [served] = self.filter.built
        self.assertTrue(served.info.secure)
        self.assertIsNone(served.info.identity)
        # The transport's own handle is OpenSSL's.
        handle = served.transport.transport.getHandle()
        self.assertEqual(tuning(handle), expected(30, 10, 3, 0))

    async def test_who_the_client_is(self) -> None:
        tls = self.server(verify_client=True, require_client_cert=True, ca_cert=self.certs.ca)
        listener = self.listener(tls=tls)
        await self.echoes(await self.connect(listener, self.client(**self.certs.client.options)))
        self.assertRegex(self.filter.built[0].info.identity, "^x509:")

    async def test_plaintext_is_refused(self) -> None:
        listener = self.listener(tls=self.server())
        client = await self.connect(listener)
        with capture() as events:
            client.transport.write(b"GET / HTTP/1.1\r\n\r\n")
            await client.closed
        self.assertEqual(self.filter.built, [])
        self.assertRegex(events.text(), f"listener {listener.name}: TLS handshake with [0-9.:]+ failed: ")

    async def test_a_handshake_that_never_ends(self) -> None:
        self.patch(listener_module.entrance, "TLS_HANDSHAKE_TIMEOUT", 0.02)
        listener = self.listener(tls=self.server())
        client = await self.connect(listener)
        await client.closed
        await self.until(lambda: listener.connections == 0)
        self.assertEqual(self.filter.built, [])

    async def test_a_handshake_that_is_not_over_when_the_listener_drains(self) -> None:
        listener = self.listener(tls=self.server())
        client = await self.connect(listener)
        await listener.drain(10)
        await client.closed
        self.assertEqual(self.filter.built, [])


class InspectorTests(TlsTests):
    """Whatever TLS can do, it can do with an inspector before it."""

    silent = True

    def listener(self, *args: Any, **config: Any) -> Listener:
        return super().listener(*args, **{"inspector": "tls" in config, **config})

    async def test_plaintext_is_refused(self) -> None:
        listener = self.listener(tls=self.server())
        await self.echoes(await self.connect(listener))
        await self.echoes(await self.connect(listener, self.client()))
        self.assertEqual([served.info.secure for served in self.filter.built], [False, True])
        self.assertEqual(listener.connections, 2)

    async def test_a_handshake_that_never_ends(self) -> None:
        self.patch(listener_module.entrance, "TLS_HANDSHAKE_TIMEOUT", 0.02)
        listener = self.listener(tls=self.server())
        silent = await self.connect(listener)
        client = await self.connect(listener)
        client.transport.write(b"\x16\x03\x01")
        await client.closed
        # Nothing was said here, as MOSN's agents do on the connection that they keep aside.
        await self.echoes(silent)

    async def closed_by(self, end: Callable[[Listener], Deferred[None]]) -> None:
        """What has said nothing is closed, and what has is not forgotten."""
        listener = self.listener(tls=self.server())
        silent = await self.connect(listener)
        gone = await self.connect(listener)
        gone.transport.abortConnection()
        spoken = await self.connect(listener)
        await self.echoes(spoken)
        await end(listener)
        await silent.closed
        await spoken.closed
        self.assertEqual(listener.connections, 0)

    async def test_silent_connections_end_with_the_listener(self) -> None:
        await self.closed_by(lambda listener: listener.stopService())

    async def test_silent_connections_end_with_a_drain(self) -> None:
        await self.closed_by(lambda listener: listener.drain(10))


class EndTests(ListenerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.filter.make = Draining

    async def test_drain_with_no_connection(self) -> None:
        listener = self.listener()
        await listener.drain(10)
        with self.assertRaises(Refused):
            await connectProtocol(self.endpoint(listener), Client())

    async def test_drain_twice_and_stop(self) -> None:
        listener = self.listener()
        await self.connect(listener)
        self.filter.built[0].busy = True
        drains = [listener.drain(10), listener.drain(10)]
        self.filter.built[0].transport.loseConnection()
        for drained in drains:
            await drained
        await listener.stopService()

    async def test_what_is_idle_or_can_t_drain_is_closed(self) -> None:
        listener = self.listener()
        idle = await self.connect(listener)
        self.filter.make = Served
        other = await self.connect(listener)
        await listener.drain(10)
        await idle.closed
        await other.closed

    async def test_what_is_busy_finishes(self) -> None:
        listener = self.listener()
        client = await self.connect(listener)
        [served] = self.filter.built
        served.busy = True
        with capture() as events:
            drained = listener.drain(10)
        self.assertIn("listener front waits for 1 connection to finish, at most 10 s", events.text())
        await self.echoes(client)
        with self.assertRaises(Refused):
            await connectProtocol(self.endpoint(listener), Client())
        self.assertFalse(drained.called)
        served.transport.loseConnection()
        await drained
        # Whoever waits may close what the protocol writes to when its connection is lost.
        self.assertIsNotNone(served.reason)

    async def test_drained_after_the_last_protocol_has_heard_of_its_loss(self) -> None:
        listener = self.listener()
        await self.connect(listener)
        [served] = self.filter.built
        served.busy = True
        heard: list[object] = []
        drained = listener.drain(10).addCallback(lambda _: heard.append(served.reason))
        served.transport.loseConnection()
        await drained
        self.assertIsNot(heard[0], None)

    async def test_what_fails_to_drain_is_closed(self) -> None:
        class Failing(Draining):
            def drain(self) -> None:
                raise ZeroDivisionError

        self.filter.make = Failing
        listener = self.listener()
        client = await self.connect(listener)
        self.filter.make = Draining
        other = await self.connect(listener)
        await listener.drain(10)
        await client.closed
        await other.closed
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_drain_has_a_deadline(self) -> None:
        listener = self.listener()
        client = await self.connect(listener)
        self.filter.built[0].busy = True
        with capture() as events:
            await listener.drain(0.02)
        self.assertIn("listener front: 1 connection outlived the 0.02 s for what is under way", events.text())
        await client.closed

    async def test_what_outlives_a_drain_is_told_why(self) -> None:
        said: list[str] = []

        @implementer(IEndable)
        class Endable(Draining):
            doing = "something"
            busy = True

            def end(self, reason: str) -> None:
                said.append(reason)
                self.transport.loseConnection()

        self.filter.make = Endable
        for leaves in (False, True):
            listener = self.listener()
            client = await self.connect(listener)
            (listener.leave if leaves else listener.drain)(0.01)
            await client.closed
        self.assertEqual(said, ["the server stops", "its listener is no more"])

    async def test_stop_closes_everything_at_once(self) -> None:
        listener = self.listener()
        client = await self.connect(listener)
        [served] = self.filter.built
        served.busy = True
        await listener.stopService()
        assert served.reason is not None
        served.reason.trap(ConnectionAborted)
        await client.closed

    async def test_no_longer_listening_while_connections_go_on(self) -> None:
        listener = self.listener()
        client = await self.connect(listener)
        with capture() as events:
            await listener.stop_accepting()
            await listener.stop_accepting()
        self.assertEqual(events.text(), f"listener front no longer listening on {listener.bound}")
        await self.echoes(client)


@implementer(IExpendable)
class Idler(Protocol):
    expendable = True


class LimitTests(ListenerTestCase):
    """How many connections a listener holds, and which one goes for another."""

    silent = True

    async def connected(self, listener: Listener, count: int) -> list[Client]:
        return [await self.connect(listener) for _ in range(count)]

    async def test_the_oldest_idle_one_makes_room(self) -> None:
        listener = self.listener(build=lambda info: Idler(), max_connections=2)
        with capture() as events:
            oldest, other, latest = await self.connected(listener, 3)
            await oldest.closed
            await self.until(lambda: listener.connections == 2)
        self.assertIn(
            "listener front: too many connections, 2 of them from 127.0.0.1: one of these was closed; "
            "there may be 2",
            events.text(),
        )
        self.assertFalse(other.closed.called or latest.closed.called)

    async def test_nobody_makes_room(self) -> None:
        listener = self.listener(max_connections=2)
        with capture() as events:
            *first, late = await self.connected(listener, 3)
            await late.closed
        self.assertIn("its connection was not taken", events.text())
        for client in first:
            await self.echoes(client)
        # Whoever leaves makes room as well.
        await self.hang_up(first[0])
        await self.until(lambda: listener.connections == 1)
        await self.echoes(await self.connect(listener))

    async def test_by_address(self) -> None:
        listener = self.listener(build=lambda info: Idler(), max_connections_per_address=1)
        first, second = await self.connected(listener, 2)
        await first.closed
        self.assertFalse(second.closed.called)

    async def test_vouched_for(self) -> None:
        """A peer that is known is no stranger, and takes nobody's place."""
        built: list[Handover] = []

        def build(info: ConnectionInfo) -> Handover:
            built.append(Handover())
            return built[-1]

        listener = self.listener(build=build, max_connections=1)
        first = await self.connect(listener)
        await self.until(lambda: built)
        built[0].vouched()
        second, third = await self.connected(listener, 2)
        await third.closed
        self.assertFalse(first.closed.called or second.closed.called)

    async def test_descriptors(self) -> None:
        """With none left for strangers, nobody is taken, and then nothing is accepted for a while."""
        clock = Clock()
        limiter = ConnectionLimiter(clock, Descriptors(16))  # fewer than this process has open
        with capture() as events:
            listener = self.listener(build=lambda info: Idler(), limiter=limiter)
            first = await self.connect(listener)
            await first.closed
            self.assertEqual(limiter.refused, 1)
            later = await connectProtocol(self.endpoint(listener), Client())
            self.addCleanup(self.hang_up, later)
            self.assertFalse(later.closed.called)
            clock.advance(PAUSE)
            await later.closed
        self.assertRegex(events.text(), r"descriptors are in use, so that nothing is accepted for 0\.5 s")
