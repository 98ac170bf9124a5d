"""Tests for L{reverseproxy.tunnel.server.registry}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.interfaces import ConnectionInfo, Identity
from reverseproxy.tunnel.handshake import Principal
from reverseproxy.tunnel.server.registry import RegisteredConnection, Registry, Requester, Selection
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof
from tests import most

ANNA = Identity("anna")
ANNA_PROVEN = Principal("static", "anna")
BERT_PROVEN = Principal("static", "bert")


def held(
    remote: str = "1.1.1.1:5",
    tls: str | None = None,
    principal: Principal | None = None,
    agent: str | None = None,
    local: str = "10.0.0.1:5",
    cluster: str = "c",
    policy: str = "",
) -> RegisteredConnection[str]:
    info = ConnectionInfo(remote, "9.9.9.9:1", identity=tls)
    announcement = None if agent is None else Announcement(agent, local)
    return RegisteredConnection(f"host {remote}", cluster, info, principal, announcement, policy)


def requester(
    ip: str = "1.1.1.1",
    tls: str | None = None,
    principal: Principal | None = None,
    agent: str | None = None,
    policy: str = "",
) -> Requester:
    return Requester(ip, tls, principal, agent, policy)


class OwnershipTests(SynchronousTestCase):
    """Who owns a connection, by what is known of it."""

    # A connection, somebody who is its owner, and somebody who is not, and why.
    TABLE: tuple[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any], str], ...] = (
        # A MOSN agent in plaintext: the address alone.
        ({}, {}, {"ip": "2.2.2.2"}, "an agent at 1.1.1.1"),
        (
            {},
            {"tls": "x", "principal": BERT_PROVEN, "agent": "z"},
            {"ip": "2.2.2.2", "agent": "a"},
            "1.1.1.1",
        ),
        # A TLS identity counts alone, wherever it comes from.
        ({"tls": "x"}, {"tls": "x", "ip": "2.2.2.2"}, {}, "the TLS identity 'x'"),
        ({"tls": "x"}, {"tls": "x"}, {"tls": "y"}, "the TLS identity 'x'"),
        (
            {"tls": "x", "principal": ANNA_PROVEN, "agent": "a"},
            {"tls": "x", "ip": "2.2.2.2"},
            {"principal": ANNA_PROVEN, "agent": "a"},
            "the TLS identity 'x'",
        ),
        # Our agent proves its principal again, wherever it comes from.
        (
            {"principal": ANNA_PROVEN, "agent": "a"},
            {"principal": ANNA_PROVEN, "agent": "a", "ip": "2.2.2.2"},
            {"agent": "a"},
            r"'anna' \(policy 'static'\)",
        ),
        (
            {"principal": ANNA_PROVEN, "agent": "a"},
            {"principal": ANNA_PROVEN},
            {"principal": BERT_PROVEN, "agent": "a"},
            "'anna'",
        ),
        (
            {"principal": ANNA_PROVEN, "agent": "a"},
            {"principal": ANNA_PROVEN},
            {"principal": Principal("other", "anna"), "agent": "a"},
            "'anna'",
        ),
        # Where a policy is demanded, nobody takes anything away without a credential.
        (
            {"principal": ANNA_PROVEN, "policy": "static"},
            {"principal": ANNA_PROVEN, "policy": "static"},
            {},
            r"'anna' \(policy 'static'\)",
        ),
        ({"policy": "static"}, {"policy": "static"}, {}, "takes a credential of the policy 'static'"),
        ({"policy": "static"}, {"policy": "static"}, {"policy": "other"}, "credential of the policy"),
        (
            {"policy": "static", "agent": "a"},
            {"policy": "static", "agent": "a"},
            {"policy": "static", "agent": "b"},
            "another agent",
        ),
        ({"policy": "static", "tls": "x"}, {"tls": "x"}, {"policy": "static"}, "the TLS identity"),
        # A MOSN agent has a credential, and can't prove it again.
        ({"principal": ANNA_PROVEN}, {}, {"ip": "2.2.2.2", "principal": ANNA_PROVEN}, "1.1.1.1"),
        # Our agent without a credential: the address, and the id besides.
        ({"agent": "a"}, {"agent": "a"}, {}, "another agent at the same address"),
        ({"agent": "a"}, {"agent": "a"}, {"agent": "b"}, "another agent at the same address"),
        ({"agent": "a"}, {"agent": "a"}, {"agent": "a", "ip": "2.2.2.2"}, "an agent at 1.1.1.1"),
    )

    def test_table(self) -> None:
        for connection, owner, stranger, pattern in self.TABLE:
            with self.subTest(connection=connection, owner=owner, stranger=stranger):
                self.assertIsNone(held(**connection).refuse(requester(**owner)))
                reason = held(**connection).refuse(requester(**stranger))
                assert reason is not None
                self.assertRegex(reason, pattern)

    def test_requester(self) -> None:
        info = ConnectionInfo("[::1]:7", "[::1]:1", identity="x")
        self.assertEqual(Requester.of(info), Requester("::1", "x", None, None))
        proof = CloseProof("a", "static", "secret")
        self.assertEqual(Requester.of(info, proof), Requester("::1", "x", None, "a"))
        self.assertEqual(Requester.of(info, proof, ANNA), Requester("::1", "x", ANNA_PROVEN, "a", "static"))
        self.assertEqual(Requester.of(info, None, ANNA), Requester("::1", "x", None, None))


class RegistryTests(SynchronousTestCase):
    def registry(self, *connections: RegisteredConnection[str]) -> Registry[str]:
        registry: Registry[str] = Registry()
        for connection in connections:
            registry.add(connection)
        return registry

    def test_by_remote_address(self) -> None:
        connection, other = held(), held("1.1.1.1:6")
        registry = self.registry(connection, other)
        selection = registry.select_evictable("c", ["1.1.1.1:5"], requester())
        self.assertEqual(selection, Selection((connection,), ()))
        self.assertEqual(selection.evict[0].host, "host 1.1.1.1:5")
        # Selecting takes nothing away.
        self.assertIn(connection, registry)

    def test_by_local_address_behind_address_translation(self) -> None:
        connection = held("3.3.3.3:7777", agent="a", local="10.0.0.1:5")
        registry = self.registry(connection)
        asked = requester("3.3.3.3", agent="a")
        self.assertEqual(registry.select_evictable("c", ["10.0.0.1:5"], asked).evict, (connection,))
        for agent in ("b", None):
            selection = registry.select_evictable("c", ["10.0.0.1:5"], requester("3.3.3.3", agent=agent))
            self.assertEqual(selection.evict, ())
            self.assertEqual([refused.address for refused in selection.refused], ["10.0.0.1:5"])

    def test_same_agent(self) -> None:
        one, two, other = held(agent="a"), held("2.2.2.2:5", agent="a", local="x"), held(agent="b")
        plain, same, far = held("1.1.1.1:8"), held("1.1.1.1:9"), held("3.3.3.3:9")
        registry = self.registry(one, two, other, plain, same, far)
        same_agent = registry.same_agent(one)
        self.assertEqual(set(same_agent), {one.host, two.host})
        self.assertEqual(set(registry.same_agent(other)), {other.host})
        self.assertEqual(set(registry.same_agent(plain)), {plain.host, same.host})
        self.assertEqual(set(registry.same_agent(far)), {far.host})
        registry.remove(one)
        self.assertEqual((set(same_agent), set(registry.same_agent(two))), ({two.host}, {two.host}))
        for each in (two, other, plain, same, far):
            registry.remove(each)
        self.assertEqual(registry._by_agent, {})

    def test_same_agent_over_a_unix_socket(self) -> None:
        plain, ours = held("unix:"), held("unix:", agent="a")
        registry = self.registry(plain, ours)
        self.assertEqual(
            (list(registry.same_agent(plain)), list(registry.same_agent(ours))), ([], [ours.host])
        )

    def test_another_cluster(self) -> None:
        registry = self.registry(held(agent="a"))
        selection = registry.select_evictable("d", ["1.1.1.1:5", "10.0.0.1:5"], requester(agent="a"))
        self.assertEqual(selection.evict, ())
        self.assertRegex(selection.refused[0].reason, "no agent holds such a connection to cluster 'd'")

    def test_refused_with_the_reason(self) -> None:
        registry = self.registry(held(), held("1.1.1.1:6", tls="x"))
        addresses = ["1.1.1.1:6", "1.1.1.1:5", "10.10.10.10:80"]
        selection = registry.select_evictable("c", addresses, requester())
        self.assertEqual([connection.info.remote for connection in selection.evict], ["1.1.1.1:5"])
        self.assertEqual(
            selection.describe_refused(),
            "'1.1.1.1:6': it belongs to the TLS identity 'x'; "
            "'10.10.10.10:80': no agent holds such a connection to cluster 'c'",
        )

    def test_description_is_bounded(self) -> None:
        registry = self.registry()
        selection = registry.select_evictable("c" * 60000, [f"{n}\n" * 9000 for n in range(7)], requester())
        text = selection.describe_refused()
        self.assertTrue(text.endswith("and 2 more"))
        self.assertTrue(text.isprintable())
        self.assertLess(len(text), 2000)
        self.assertEqual(Selection[str]((), ()).describe_refused(), "")

    def test_repeated_addresses(self) -> None:
        connection = held(agent="a")
        registry = self.registry(connection)
        selection = registry.select_evictable(
            "c", ["1.1.1.1:5", "10.0.0.1:5", "1.1.1.1:5", "x", "x"], requester(agent="a")
        )
        self.assertEqual(selection.evict, (connection,))
        self.assertEqual([refused.address for refused in selection.refused], ["x"])

    def test_an_address_of_several(self) -> None:
        # Two agents with the same address behind different routers, one id made up by the other.
        mine = held("3.3.3.3:1", agent="a", principal=ANNA_PROVEN)
        theirs = held("4.4.4.4:1", agent="a", principal=BERT_PROVEN)
        registry = self.registry(mine, theirs)
        asked = requester("3.3.3.3", principal=ANNA_PROVEN, agent="a")
        self.assertEqual(registry.select_evictable("c", ["10.0.0.1:5"], asked), Selection((mine,), ()))
        asked = requester("3.3.3.3", agent="a")
        selection = registry.select_evictable("c", ["10.0.0.1:5"], asked)
        self.assertEqual((len(selection.evict), len(selection.refused)), (0, 1))

    def test_unix_clients_have_no_address(self) -> None:
        mosn, ours = held("unix:"), held("unix:", agent="a", local="unix:")
        registry = self.registry(mosn, ours)
        self.assertEqual(registry.select_evictable("c", ["unix:"], requester("unix:")).evict, ())
        selection = registry.select_evictable("c", ["unix:"], requester("unix:", agent="a"))
        self.assertEqual(selection.evict, (ours,))

    def test_removed(self) -> None:
        first, second = held(agent="a"), held(agent="a")
        registry = self.registry(first, second, first)
        self.assertEqual(len(registry), 2)
        registry.remove(first)
        self.assertNotIn(first, registry)
        for address in ("1.1.1.1:5", "10.0.0.1:5"):
            selection = registry.select_evictable("c", [address], requester(agent="a"))
            self.assertEqual(selection.evict, (second,))
        registry.remove(second)
        registry.remove(second)
        self.assertEqual(len(registry), 0)
        # Nothing is left behind.
        self.assertEqual(vars(registry), vars(Registry()))

    def test_an_agent_without_local_address(self) -> None:
        connection = held(agent="a", local="")
        registry = self.registry(connection)
        self.assertEqual(registry.select_evictable("c", [""], requester(agent="a")).evict, ())
        registry.remove(connection)
        self.assertEqual(vars(registry), vars(Registry()))

    def test_ten_thousand(self) -> None:
        connections = [
            held(f"10.1.{number // 250}.{number % 250}:5000", agent=f"a{number}") for number in range(10_000)
        ]
        registry = self.registry(*connections)
        addresses = [connection.info.remote for connection in connections]
        selection = registry.select_evictable("c", addresses, requester("10.1.0.7", agent="a7"))
        self.assertEqual(selection.evict, (connections[7],))
        self.assertEqual(len(selection.refused), 9_999)
        for connection in connections:
            registry.remove(connection)
        self.assertEqual(vars(registry), vars(Registry()))

    @settings(deadline=None, max_examples=most(60))
    @given(st.data())
    def test_only_owners_evict(self, data: st.DataObject) -> None:
        names = st.sampled_from(["a", "b"])
        principals = st.none() | st.builds(Principal, st.just("static"), names)
        ips = st.sampled_from(["1.1.1.1", "2.2.2.2"])
        ports = st.sampled_from(["5", "6"])
        addresses = st.builds("{}:{}".format, ips, ports)
        connections = data.draw(
            st.lists(
                st.builds(
                    held, addresses, st.none() | names, principals, st.none() | names, addresses, st.just("c")
                ),
                max_size=12,
            )
        )
        registry = self.registry(*connections)
        asked = data.draw(st.builds(Requester, ips, st.none() | names, principals, st.none() | names))
        listed = data.draw(st.lists(addresses, max_size=6))
        selection = registry.select_evictable("c", listed, asked)
        expected = {
            connection
            for connection in connections
            if connection.refuse(asked) is None
            and (
                connection.info.remote in listed
                or (
                    connection.announcement is not None
                    and connection.announcement.agent == asked.agent
                    and connection.announcement.local_address in listed
                )
            )
        }
        self.assertEqual(set(selection.evict), expected)
        self.assertTrue({refused.address for refused in selection.refused} <= set(listed))
