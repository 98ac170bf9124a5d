"""Tests for L{reverseproxy.tunnel.server.transport_policy} and L{reverseproxy.tunnel.server.worker_group}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.server.registry import Requester
from reverseproxy.tunnel.server.transport_policy import TransportPolicy
from reverseproxy.tunnel.server.worker_group import WorkerGroup

PLAIN = ConnectionInfo("10.0.0.1:5", "10.0.0.2:6")


class Tls:
    """The TLS of a listener."""

    def __init__(self, plaintext: bool = False) -> None:
        self.plaintext = plaintext
        self.version = 1


class PolicyTests(SynchronousTestCase):
    def test_plaintext(self) -> None:
        policy = TransportPolicy()
        self.assertEqual(policy.objection(PLAIN, None), "")
        tls: Any = Tls()
        policy.demand(tls, takes_plaintext=True)
        self.assertEqual(policy.objection(PLAIN, None), "")
        policy.demand(tls, takes_plaintext=False)
        self.assertEqual(policy.objection(PLAIN, None), "it is not encrypted, and has to be now")
        tls.plaintext = True
        self.assertEqual(policy.objection(PLAIN, None), "")

    def test_changes(self) -> None:
        """Each is told once: another TLS, or other files of the same one."""
        policy = TransportPolicy()
        self.assertFalse(policy.changed())
        tls: Any = Tls()
        policy.demand(tls, takes_plaintext=False)
        self.assertEqual([policy.changed(), policy.changed()], [True, False])
        tls.version += 1
        self.assertEqual([policy.changed(), policy.changed()], [True, False])
        policy.demand(None, takes_plaintext=False)
        self.assertEqual([policy.changed(), policy.changed()], [True, False])


class GroupTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Clients of a Unix socket get one each."""
        group = WorkerGroup()
        group.unix_prefix = "2."
        self.assertEqual(group.address_of("10.0.0.1:5"), "10.0.0.1:5")
        first, second = group.address_of("unix:"), group.address_of("unix:")
        self.assertTrue(first.startswith("unix:#2.") and second.startswith("unix:#2."))
        self.assertNotEqual(first, second)

    def test_connections_of_an_agent(self) -> None:
        group = WorkerGroup()
        group.count = 4
        self.assertEqual([group.connections_wanted(most) for most in (0, 2, 9)], [4, 2, 4])

    def test_closes_elsewhere(self) -> None:
        """The others are asked only if there are any, and something to ask."""
        group, requester = WorkerGroup(), Requester("10.0.0.1")
        self.assertEqual(self.successResultOf(group.evict("c", ["a"], requester)), set())
        asked: list[Any] = []

        def evict(cluster: str, addresses: Any, who: Requester) -> Any:
            asked.append((cluster, addresses, who))
            return succeed(set(addresses))

        group.evict_elsewhere = evict
        self.assertEqual(self.successResultOf(group.evict("c", [], requester)), set())
        self.assertEqual(self.successResultOf(group.evict("c", ["a"], requester)), {"a"})
        self.assertEqual(asked, [("c", ["a"], requester)])
