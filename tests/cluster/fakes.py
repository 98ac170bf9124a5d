"""What the tests of the cluster room share: connections, protocols and hosts in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Handover, IDetachable
from reverseproxy.cluster.host import AgentHost, Host, IHostPool, ReverseHost
from reverseproxy.interfaces import ILoadBalancer


class Wire(StringTransport):
    """A connection whose other end the test plays; treats its protocol as Twisted's TCP does."""

    aborted = False

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        protocol.makeConnection(self)

    def abortConnection(self) -> None:
        self.aborted = True

    @property
    def reading(self) -> bool:
        return self.producerState == "producing"

    def receive(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def end(self) -> None:
        """The peer sends an end-of-file."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self.lose(Failure(ConnectionDone()))

    def lose(self, reason: Failure | None = None) -> None:
        self.connected = False
        self.protocol.connectionLost(Failure(ConnectionLost()) if reason is None else reason)


class User(Protocol):
    """A protocol that records what it is told."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")


@implementer(IHalfCloseableProtocol)
class HalfUser(User):
    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")


@implementer(IDetachable)
class IdleUser(User):
    """A user that gives its connection up if it is idle."""

    idle = True

    def detach(self) -> bool:
        if self.idle:
            self.events.append("detached")
        return self.idle


class Users(Factory):
    """Makes protocols of one kind and keeps them."""

    noisy = False

    def __init__(self, make: Callable[[], IProtocol | None] = User) -> None:
        self.make = make
        self.made: list[Any] = []

    def buildProtocol(self, addr: object) -> Any:
        protocol = self.make()
        self.made.append(protocol)
        return protocol


@implementer(IHostPool)
class Pool:
    def __init__(self) -> None:
        self.events: list[str] = []

    def drain(self) -> None:
        self.events.append("drain")

    def close(self) -> None:
        self.events.append("close")


class FakeHost(AgentHost):
    """A host that never connects to anything."""

    is_reverse = False

    def __init__(
        self,
        address: str,
        weight: int = 1,
        capacity: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(lambda host, reason: None, address, "", weight, metadata, capacity)
        self.retirements = 0
        self.reasons: list[str] = []
        self.far: float | None = None

    @property
    def rtt(self) -> float | None:
        return self.far

    def __repr__(self) -> str:
        return self.address

    def __hash__(self) -> int:
        # The same in each run, so that sets of hosts have the same order.
        return crc32(self.address.encode())

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol = factory.buildProtocol(None)
        return fail(ConnectionLost()) if protocol is None else succeed(protocol)

    def retire(self) -> None:
        self.retirements += 1
        super().retire()

    def close(self, reason: str) -> None:
        self.reasons.append(reason)
        super().close(reason)


class ReturningHost(FakeHost):
    """A host of capacity 1 that is expected back when it is gone, like an agent's."""

    is_reverse = True

    def __init__(self, address: str, weight: int = 1, metadata: dict[str, str] | None = None) -> None:
        super().__init__(address, weight, capacity=1, metadata=metadata)


class Gone:
    """Records which hosts are gone, and why."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, host: Host, reason: str) -> None:
        self.reasons.append(reason)


def reverse_host(
    on_gone: Callable[[ReverseHost, str], object],
    clock: Clock,
    address: str = "10.0.0.7:50000",
    surplus: bytes = b"",
    **options: Any,
) -> tuple[ReverseHost, Wire]:
    """A reverse host that has taken its connection over."""
    owner = Handover()
    wire = Wire(owner)
    host = ReverseHost(address, "edge", 10, {"zone": "a"}, wire, on_gone, clock=clock, **options)
    host.attach(owner, surplus)
    return host, wire


def hosts_of(*weights: int) -> list[FakeHost]:
    return [FakeHost(f"h{number}", weight) for number, weight in enumerate(weights)]


def picks(balancer: ILoadBalancer, count: int) -> list[str]:
    picked = [balancer.pick(None) for _ in range(count)]
    return ["none" if host is None else host.address for host in picked]
