"""Tests for L{reverseproxy.cluster.names.dns} and L{reverseproxy.cluster.names.dns_settings}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as real_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.task import Clock
from twisted.names import dns, server
from twisted.names.common import ResolverBase
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.cluster.names import dns_settings as settings_module
from reverseproxy.cluster.names.dns import SOCKET_LIFE, DnsClient
from reverseproxy.cluster.names.dns_settings import DnsSettings, dns_settings, parse_resolv_conf
from reverseproxy.config.models import ClusterConfig, DnsResolversConfig
from reverseproxy.errors import ConfigError
from reverseproxy.net.resolver import IAnswerReceiver
from tests.tunnel.logged import capture

V4: Sequence[type[IAddress]] = (IPv4Address,)
V6: Sequence[type[IAddress]] = (IPv6Address,)


class SettingsTests(SynchronousTestCase):
    def test_candidates(self) -> None:
        """Names with few dots are looked for in the domains first, complete ones only as they are."""
        settings = DnsSettings((), ("a.example", "b.example."), ndots=2)
        self.assertEqual(settings.candidates("x"), ["x.a.example", "x.b.example", "x"])
        self.assertEqual(settings.candidates("x.y.z"), ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"])
        self.assertEqual(settings.candidates("x."), ["x"])

    def test_resolv_conf(self) -> None:
        """Everything that matters here is understood, and what is not is skipped."""
        text = """
        # comment
        domain old.example
        nameserver 10.0.0.1 ; first
        nameserver fe80::1
        nameserver not-an-address
        nameserver
        search a.example b.example
        sortlist 10.0.0.0
        options no-number:x timeout:9999 unknown:3
        options rotate ndots:5 timeout:3 attempts:4 ndots:x edns0
        """
        self.assertEqual(
            parse_resolv_conf(text, 5353),
            DnsSettings(
                (("10.0.0.1", 5353), ("fe80::1", 5353)),
                ("a.example", "b.example"),
                ndots=5,
                timeout=3.0,
                attempts=4,
            ),
        )

    def test_bounds(self) -> None:
        """Numbers that make no sense are brought where they do."""
        settings = parse_resolv_conf("options ndots:999999999999 timeout:0 attempts:0")
        self.assertEqual((settings.ndots, settings.timeout, settings.attempts), (15, 1.0, 1))

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """No file makes it fail."""
        parse_resolv_conf(text)
        parse_resolv_conf(f"options {text}\nnameserver {text}")

    def settings(self, **keys: Any) -> DnsSettings | None:
        return dns_settings(ClusterConfig(name="c", type="STRICT_DNS", **keys))

    def test_system(self) -> None:
        """Where nothing else is wanted, the system's resolver will do."""
        self.assertIsNone(self.settings())
        self.assertIsNone(self.settings(dns_resolvers=DnsResolversConfig(search=("a.example",))))

    def test_given(self) -> None:
        """Servers that are given go first."""
        resolvers = DnsResolversConfig(
            servers=("10.0.0.1", "10.0.0.2"),
            search=("a.example",),
            port="5353",
            ndots=99,
            timeout=4,
            attempts=5,
        )
        self.assertEqual(
            self.settings(dns_resolvers=resolvers, dns_resolver_file="/nowhere"),
            DnsSettings(
                (("10.0.0.1", 5353), ("10.0.0.2", 5353)), ("a.example",), ndots=15, timeout=4.0, attempts=5
            ),
        )
        error = self.assertRaises(
            ConfigError,
            self.settings,
            dns_resolvers=DnsResolversConfig(servers=("10.0.0.1", "dns.example", "10.0.0")),
        )
        self.assertEqual(
            [str(problem) for problem in error.problems],
            [
                "dns_resolvers.servers[1]: 'dns.example' is not an IP address",
                "dns_resolvers.servers[2]: '10.0.0' is not an IP address",
            ],
        )

    def test_file(self) -> None:
        """Or a file has them."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("nameserver 10.0.0.9\n")
        self.assertEqual(
            self.settings(dns_resolver_file=path, dns_resolver_port="54"), DnsSettings((("10.0.0.9", 54),))
        )
        self.assertEqual(self.settings(dns_resolver_file=path), DnsSettings((("10.0.0.9", 53),)))

    def test_system_servers(self) -> None:
        """The system's servers are asked directly if life times matter."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("nameserver 10.0.0.8\n")
        self.patch(settings_module, "RESOLV_CONF", path)
        self.assertEqual(self.settings(respect_dns_ttl=True), DnsSettings((("10.0.0.8", 53),)))

    def test_no_servers(self) -> None:
        """There must be some."""
        path = self.mktemp()
        key = "dns_resolver_file"
        error = self.assertRaises(ConfigError, self.settings, dns_resolver_file=path)
        problem = f"{key}: the name servers in {path!r} can't be read: No such file or directory"
        self.assertEqual(str(error), problem)
        with open(path, "wb") as file:
            file.write(b"\xff search x")
        error = self.assertRaises(ConfigError, self.settings, dns_resolver_file=path)
        self.assertEqual(str(error), f"{key}: there is no name server in {path!r}")
        self.patch(settings_module, "RESOLV_CONF", path)
        error = self.assertRaises(ConfigError, self.settings, respect_dns_ttl=True)
        self.assertEqual(str(error), f"respect_dns_ttl: there is no name server in {path!r}")


@implementer(IAnswerReceiver)
class Receiver:
    """Records what it is told."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.resolution: IHostResolution | None = None
        self.done: Deferred[list[object]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        assert isinstance(address, IPv4Address | IPv6Address)
        self.events.append((address.host, address.port))

    def lifetime(self, seconds: float) -> None:
        self.events.append(seconds)

    def failed(self, reason: str) -> None:
        self.events.append(reason)

    def resolutionComplete(self) -> None:
        self.events.append("end")
        self.done.callback(self.events)


@implementer(IResolutionReceiver)
class PlainReceiver:
    """One who can be told addresses only."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        self.events.append(address)

    def resolutionComplete(self) -> None:
        self.events.append("end")


class Port:
    """A socket for datagrams."""

    def __init__(self, network: Network, protocol: dns.DNSDatagramProtocol, interface: str) -> None:
        self.network = network
        self.protocol = protocol
        self.interface = interface
        self.open = True

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        message = dns.Message()
        message.fromStr(data)
        self.network.asked.append((self, message, address))

    def stopListening(self) -> Deferred[None]:
        self.open = False
        self.protocol.doStop()
        return succeed(None)


class Network(Clock):
    """
    A reactor as far as datagrams go; the test plays the servers.

    @ivar ports: all sockets that there ever were.
    @ivar asked: all questions, with socket and server.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[Port] = []
        self.asked: list[tuple[Port, dns.Message, tuple[str, int]]] = []
        self.error: Exception | None = None

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> Port:
        if self.error is not None:
            raise self.error
        assert port == 0
        made = Port(self, protocol, interface)
        self.ports.append(made)
        protocol.makeConnection(made)
        return made

    def question(self) -> tuple[str, int, tuple[str, int]]:
        """What was asked last: name, type and server."""
        _, message, address = self.asked[-1]
        (query,) = message.queries
        return query.name.name.decode(), query.type, address

    def answer(
        self, *records: dns.RRHeader, code: int = dns.OK, source: tuple[str, int] | None = None
    ) -> None:
        """Answer the last question."""
        port, question, address = self.asked[-1]
        message = dns.Message(question.id, answer=1, rCode=code)
        message.queries = question.queries
        message.answers = list(records)
        port.protocol.datagramReceived(message.toStr(), source or address)


def a(ip: str, ttl: int = 60, name: str = "x.example") -> dns.RRHeader:
    return dns.RRHeader(name, dns.A, ttl=ttl, payload=dns.Record_A(ip))


def aaaa(ip: str, ttl: int = 60) -> dns.RRHeader:
    return dns.RRHeader("x.example", dns.AAAA, ttl=ttl, payload=dns.Record_AAAA(ip))


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.make()

    def make(self, *servers: str, **options: Any) -> None:
        addresses = tuple((server, 53) for server in servers or ("10.0.0.1",))
        self.client = DnsClient(DnsSettings(addresses, **options), self.network)

    def ask(self, name: str = "x.example", kinds: Sequence[type[IAddress]] = V4) -> Receiver:
        receiver = Receiver()
        self.client.resolveHostName(receiver, name, 80, addressTypes=kinds)
        return receiver

    def test_interface(self) -> None:
        verifyObject(IHostnameResolver, self.client)
        receiver = self.ask()
        assert receiver.resolution is not None
        verifyObject(IHostResolution, receiver.resolution)
        self.assertEqual(receiver.resolution.name, "x.example")

    def test_answered(self) -> None:
        """All addresses are reported, and the shortest time that they are good for."""
        receiver = self.ask()
        self.assertEqual(self.network.question(), ("x.example", dns.A, ("10.0.0.1", 53)))
        alias = dns.RRHeader("x.example", dns.CNAME, ttl=5, payload=dns.Record_CNAME("y.example"))
        self.network.answer(alias, a("10.1.0.1", 60, "y.example"), a("10.1.0.2", 30, "y.example"))
        self.assertEqual(receiver.events, [("10.1.0.1", 80), ("10.1.0.2", 80), 30.0, "end"])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_v6(self) -> None:
        """IPv6 addresses are asked for if they are wanted."""
        receiver = self.ask(kinds=V6)
        self.assertEqual(self.network.question()[1], dns.AAAA)
        self.network.answer(aaaa("2001:db8::1"), a("10.1.0.1"))
        self.assertEqual(receiver.events, [("2001:db8::1", 80), 60.0, "end"])

    def test_both(self) -> None:
        """Without a preference, both kinds are."""
        receiver = Receiver()
        self.client.resolveHostName(receiver, "x.example")
        self.network.answer(a("10.1.0.1"))
        self.network.answer(aaaa("2001:db8::1", 7))
        self.assertEqual(receiver.events, [("10.1.0.1", 0), ("2001:db8::1", 0), 7.0, "end"])

    def test_plain_receiver(self) -> None:
        """One who does not know of life times and reasons is not told of them."""
        good, bad = PlainReceiver(), PlainReceiver()
        self.client.resolveHostName(good, "x.example", addressTypes=V4)
        self.network.answer(a("10.1.0.1"))
        self.assertEqual(good.events, [IPv4Address("TCP", "10.1.0.1", 0), "end"])
        self.client.resolveHostName(bad, "x.example", addressTypes=V4)
        self.network.answer(code=dns.ENAME)
        self.assertEqual(bad.events, ["end"])

    def test_search(self) -> None:
        """The first of the candidates that has addresses counts."""
        self.make(search=("a.example", "b.example"))
        receiver = self.ask("x")
        self.assertEqual(self.network.question()[0], "x.a.example")
        self.network.answer(code=dns.ENAME)
        self.assertEqual(self.network.question()[0], "x.b.example")
        self.network.answer()
        self.assertEqual(self.network.question()[0], "x")
        self.network.answer(a("10.1.0.1"))
        self.assertEqual(receiver.events[0], ("10.1.0.1", 80))

    def test_no_address(self) -> None:
        """A name may have no address, or not exist."""
        nothing = self.ask()
        self.network.answer(aaaa("2001:db8::1"))
        self.assertEqual(nothing.events, ["it has no address", "end"])
        unknown = self.ask(kinds=(*V4, *V6))
        self.network.answer(code=dns.ENAME)
        self.assertEqual(unknown.events, ["there is no name x.example", "end"])

    def test_servers_in_turn(self) -> None:
        """A server that does not answer, or can't, is followed by the next one, and again."""
        self.make("10.0.0.1", "fe80::1", timeout=2.0, attempts=2)
        receiver = self.ask()
        self.network.advance(2.0)
        self.network.answer(code=dns.ESERVER)
        self.network.advance(2.0)
        self.network.advance(2.0)
        self.assertEqual(
            [(address[0], port.interface) for port, _, address in self.network.asked],
            [("10.0.0.1", ""), ("fe80::1", "::")] * 2,
        )
        self.assertEqual(len(self.network.ports), 2)
        reason, end = receiver.events
        self.assertIn("fe80::1 has not answered", str(reason))
        self.assertEqual(end, "end")

    def test_error_answer(self) -> None:
        """The reason names the server and its error."""
        self.make(attempts=1)
        receiver = self.ask()
        self.network.answer(code=dns.EREFUSED)
        self.assertEqual(receiver.events, ["10.0.0.1 has answered with the error 5", "end"])

    def test_addresses_that_are_written_otherwise(self) -> None:
        for asked, source in (
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("fe80::1", "fe80::1%2"),
        ):
            self.make(asked)
            receiver = self.ask()
            self.network.answer(a("6.6.6.6"), source=("fe80::2", 53))
            self.network.answer(a("10.1.0.1"), source=(source, 53))
            self.assertEqual(receiver.events[0], ("10.1.0.1", 80))

    def test_what_was_asked_is_forgotten(self) -> None:
        self.make("10.0.0.1", attempts=1)
        for _ in range(100):
            self.ask()
            self.network.advance(3)
        self.assertLess(len(self.network.ports[-1].protocol._asked), 20)

    def test_forged(self) -> None:
        """Answers from elsewhere are no answers."""
        receiver = self.ask()
        for source in (("10.0.0.2", 53), ("10.0.0.1", 54), ("::1", 53)):
            self.network.answer(a("6.6.6.6"), source=source)
        self.network.ports[-1].protocol.datagramReceived(b"", ("10.0.0.1", 53))
        self.network.ports[-1].protocol.datagramReceived(b"\0\0" + bytes(10), ("10.0.0.1", 53))
        self.assertEqual(receiver.events, [])
        self.network.answer(a("10.1.0.1"))
        self.assertEqual(receiver.events[0], ("10.1.0.1", 80))

    def test_no_name(self) -> None:
        """What can't be a name is not asked for."""
        receiver = self.ask("x" * 80 + ".example")
        self.assertEqual(len(receiver.events), 2)
        self.assertIn("is no name of a host", str(receiver.events[0]))
        self.assertEqual(self.network.ports, [])

    def test_no_socket(self) -> None:
        """A socket may not be had; the next server may be of another kind."""
        self.network.error = OSError("too many open files")
        self.make(attempts=1)
        receiver = self.ask()
        self.assertEqual(receiver.events, ["10.0.0.1 has not answered: OSError too many open files", "end"])

    def test_cancelled(self) -> None:
        """After it was cancelled nothing is reported."""
        receiver = self.ask()
        assert receiver.resolution is not None
        receiver.resolution.cancel()
        self.network.answer(a("10.1.0.1"))
        self.network.advance(60)
        self.assertEqual(receiver.events, [])
        self.assertEqual(len(self.network.asked), 1)

    def test_unexpected(self) -> None:
        """A failure that nobody thought of is logged, and ends the lookup."""
        receiver = self.ask()
        self.patch(receiver, "addressResolved", lambda address: 1 / 0)
        with capture() as events:
            self.network.answer(a("10.1.0.1"))
        self.assertEqual(receiver.events, ["division by zero", "end"])
        self.assertIn("unexpected", events.text())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_socket_is_kept(self) -> None:
        """One socket serves for a while, and is then replaced, unless it is in use."""
        for _ in range(3):
            self.ask()
            self.network.answer(a("10.1.0.1"))
        self.assertEqual(len(self.network.ports), 1)
        self.network.advance(SOCKET_LIFE - 1)
        self.ask()
        self.network.advance(1.5)
        self.ask("y.example")
        self.assertEqual(len(self.network.ports), 1)
        self.network.answer(a("10.1.0.1"))
        self.network.advance(60)
        self.ask()
        self.assertEqual([port.open for port in self.network.ports], [False, True])

    def test_stop(self) -> None:
        """In the end the sockets are closed."""
        self.ask()
        self.network.answer(a("10.1.0.1"))
        self.successResultOf(self.client.stop())
        self.assertFalse(self.network.ports[0].open)
        self.successResultOf(self.client.stop())

    def test_resolution_before_it_began(self) -> None:
        """To cancel what has not begun is harmless."""

        class Impatient(Receiver):
            def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
                resolutionInProgress.cancel()

        receiver = Impatient()
        self.client.resolveHostName(receiver, "x.example", addressTypes=V4)
        self.network.answer(a("10.1.0.1"))
        self.assertEqual(receiver.events[-1], "end")


class Datagrams(dns.DNSDatagramProtocol):
    """A name server's datagrams, as long as they were when the protocol was made."""

    def writeMessage(self, message: dns.Message, address: tuple[str, int]) -> None:
        message.maxSize = 512
        super().writeMessage(message, address)


class Authority(ResolverBase):
    """What a name server knows."""

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: Any) -> Deferred[Any]:
        count = {b"few.example": 2, b"many.example": 60}[name]
        return succeed(([a(f"10.1.0.{n}", 60, name.decode()) for n in range(count)], [], []))


class SocketTests(TestCase):
    """A client and a server over real sockets."""

    def serve(self, interface: str) -> int:
        factory = server.DNSServerFactory(clients=[Authority()])
        factory.noisy = False
        reactor: Any = real_reactor
        tcp = reactor.listenTCP(0, factory, interface=interface)
        port: int = tcp.getHost().port
        udp = reactor.listenUDP(port, Datagrams(factory), interface=interface)
        self.addCleanup(udp.stopListening)
        self.addCleanup(tcp.stopListening)
        return port

    async def look_up(self, interface: str, name: str) -> list[object]:
        client = DnsClient(DnsSettings(((interface, self.serve(interface)),), timeout=5.0), real_reactor)
        self.addCleanup(client.stop)
        receiver = Receiver()
        client.resolveHostName(receiver, name, addressTypes=V4)
        return await receiver.done

    async def test_datagrams(self) -> None:
        events = await self.look_up("127.0.0.1", "few.example")
        self.assertEqual(events, [("10.1.0.0", 0), ("10.1.0.1", 0), 60.0, "end"])

    async def test_too_long_for_a_datagram(self) -> None:
        """The question is asked again over TCP."""
        events = await self.look_up("127.0.0.1", "many.example")
        self.assertEqual(len(events), 62)
