"""Tests for L{reverseproxy.tunnel.handshake}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.interfaces import ConnectionInfo, IConnectionValidator, Identity
from reverseproxy.tunnel.handshake import (
    Accepted,
    Admission,
    HeldConnection,
    Principal,
    Refusal,
    Registry,
    Requester,
    Selection,
)
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof
from reverseproxy.wire.mosn.frames import ConnectionInit, InitResponse, Status
from tests import most


@implementer(IConnectionValidator)
class Validator:
    """Knows credentials."""

    def __init__(self, **known: Identity) -> None:
        self.known = known

    def validate(self, credential: str, host_name: str, cluster_name: str) -> Identity | None:
        return self.known.get(credential)


ANNA = Identity("anna")
BERT = Identity("bert", clusters=frozenset({"c"}), max_weight=5)
FIXED = Validator(anna=ANNA, bert=BERT, nowhere=Identity("nowhere", frozenset()))
CLUSTERS = {"c", "d", "guarded", "open"}


def admission(policy: str = "", **cluster_policies: str) -> Admission:
    validators = {"static": FIXED, "other": Validator(anna=ANNA)}
    return Admission(CLUSTERS.__contains__, validators, policy, cluster_policies)


def judge(door: Admission, init: ConnectionInit) -> Accepted | Refusal:
    """What a server does, with validators that answer at once."""
    checked = door.check_policy(init)
    if isinstance(checked, Refusal):
        return checked
    identity = None
    if checked is not None:
        identity = checked.validate(init.credential, init.host_name, init.cluster_name)
        assert identity is None or isinstance(identity, Identity)
    return door.conclude(init, identity)


def init(cluster: str = "c", policy: str = "", credential: str = "", **fields: Any) -> ConnectionInit:
    return ConnectionInit(cluster, credential_policy=policy, credential=credential, **fields)


class AdmissionTests(SynchronousTestCase):
    def refused(self, door: Admission, asked: ConnectionInit, status: Status, pattern: str = "") -> None:
        answer = judge(door, asked)
        assert isinstance(answer, Refusal), answer
        self.assertEqual(answer.status, status)
        self.assertRegex(answer.reason, pattern or ".")
        self.assertEqual(answer.response(), InitResponse(status))

    def accepted(self, door: Admission, asked: ConnectionInit) -> Accepted:
        answer = judge(door, asked)
        assert isinstance(answer, Accepted), answer
        return answer

    # MOSN's rules

    def test_success(self) -> None:
        answer = self.accepted(admission(), init(host_name="h", weight=7))
        self.assertEqual(answer, Accepted("c", "h", 7, None, None))
        self.assertEqual(answer.response(), InitResponse(Status.SUCCESS))

    def test_success_with_a_credential(self) -> None:
        answer = self.accepted(admission(), init("c", "static", "anna"))
        self.assertEqual(
            answer, Accepted("c", "", 10, Principal("static", "anna"), None, used_policy="static")
        )

    def test_credential_rejected(self) -> None:
        self.refused(
            admission(),
            init("c", "static", "wrong"),
            Status.CREDENTIAL_REJECTED,
            "validator of policy 'static' rejected",
        )

    def test_validator_missing(self) -> None:
        self.refused(
            admission(), init("c", "magic", "anna"), Status.VALIDATOR_MISSING, "no validator .* 'magic'"
        )

    def test_cluster_unknown(self) -> None:
        for name in ("nope", ""):
            self.refused(admission(), init(name), Status.CLUSTER_UNKNOWN, f"no cluster '{name}'")

    def test_the_credential_comes_before_the_cluster(self) -> None:
        self.refused(admission(), init("nope", "magic"), Status.VALIDATOR_MISSING)
        self.refused(admission(), init("nope", "static", "wrong"), Status.CREDENTIAL_REJECTED)
        self.refused(admission(), init("nope", "static", "anna"), Status.CLUSTER_UNKNOWN)

    def test_clusters_are_looked_up_each_time(self) -> None:
        known: set[str] = set()
        door = Admission(known.__contains__, {})
        self.refused(door, init("late"), Status.CLUSTER_UNKNOWN)
        known.add("late")
        self.accepted(door, init("late"))

    def test_weight_is_mosns(self) -> None:
        for announced, effective in ((0, 1), (10, 10), (500, 128), (-1, 128), (2**32, 1)):
            self.assertEqual(self.accepted(admission(), init(weight=announced)).weight, effective)

    # beyond MOSN

    def test_a_listener_demands_a_policy(self) -> None:
        door = admission("static")
        self.accepted(door, init("c", "static", "anna"))
        self.refused(
            door,
            init("c"),
            Status.CREDENTIAL_REJECTED,
            "cluster 'c' demands .* 'static', the agent uses none",
        )
        self.refused(door, init("c", "other", "anna"), Status.CREDENTIAL_REJECTED, "the agent uses 'other'")
        self.refused(door, init("c", "magic", "anna"), Status.VALIDATOR_MISSING)

    def test_a_cluster_that_is_unknown_is_not_told_without_the_policy(self) -> None:
        self.refused(admission("static"), init("nope"), Status.CREDENTIAL_REJECTED)

    def test_a_cluster_demands_a_policy(self) -> None:
        door = admission("static", guarded="other", open="")
        self.assertEqual(
            [door.demanded_policy(name) for name in ("c", "guarded", "open")], ["static", "other", ""]
        )
        self.accepted(door, init("guarded", "other", "anna"))
        self.refused(
            door, init("guarded", "static", "anna"), Status.CREDENTIAL_REJECTED, "demands .* 'other'"
        )
        self.accepted(door, init("open"))
        self.accepted(door, init("open", "static", "anna"))
        self.refused(door, init("open", "static", "wrong"), Status.CREDENTIAL_REJECTED, "rejected")

    def test_a_policy_without_validator_can_not_be_demanded(self) -> None:
        self.assertRaisesRegex(
            ValueError, "'magic' is demanded .* validators for: other, static", admission, "magic"
        )
        self.assertRaisesRegex(
            ValueError, "validators for: none", Admission, CLUSTERS.__contains__, {}, "", {"c": "x"}
        )

    def test_clusters_of_an_identity(self) -> None:
        self.accepted(admission(), init("c", "static", "bert"))
        self.refused(
            admission(),
            init("d", "static", "bert"),
            Status.CREDENTIAL_REJECTED,
            "belongs to 'bert', who may not join cluster 'd'",
        )
        self.refused(admission(), init("nope", "static", "bert"), Status.CREDENTIAL_REJECTED, "may not join")
        self.refused(admission(), init("c", "static", "nowhere"), Status.CREDENTIAL_REJECTED, "may not join")

    def test_weight_is_lowered(self) -> None:
        for announced, effective in ((3, 3), (5, 5), (10, 5), (0, 1), (-1, 5)):
            asked = init("c", "static", "bert", weight=announced)
            self.assertEqual(self.accepted(admission(), asked).weight, effective)
        door = Admission(CLUSTERS.__contains__, {"p": Validator(x=Identity("x", max_weight=0))})
        self.assertEqual(self.accepted(door, init("c", "p", "x")).weight, 1)

    def test_leaving_out_the_check_lets_nobody_in(self) -> None:
        door = admission("static")
        for asked in (init("c"), init("c", "magic"), init("c", "other"), init("c", "static", "anna")):
            self.assertIsInstance(door.conclude(asked, None), Refusal)
        self.assertIsInstance(door.conclude(init("c"), ANNA), Refusal)
        self.assertIsInstance(door.conclude(init("c", "other"), ANNA), Refusal)

    def test_our_agents_are_answered_as_such(self) -> None:
        announcement = Announcement("a1", "10.0.0.1:5", {"zone": "x"})
        answer = self.accepted(admission(), init(extra=announcement.to_extra()))
        self.assertEqual(answer.announcement, announcement)
        self.assertEqual(answer.response(), InitResponse(Status.SUCCESS, {"reverseproxy": {"version": 1}}))

    def test_other_extras_change_nothing(self) -> None:
        for extra in ({}, {"a": 1}, {"reverseproxy": 5}, {"reverseproxy": {"version": 1}}):
            answer = self.accepted(admission(), init(extra=extra))
            self.assertEqual(answer, Accepted("c", "", 10, None, None))
            self.assertIsNone(answer.response().extra)

    def test_what_agents_send_can_not_garble_the_log(self) -> None:
        nasty = "x\n\x1b[2J\u202e" + "y" * 60000
        for asked in (init(nasty), init("c", nasty)):
            answer = judge(admission(), asked)
            assert isinstance(answer, Refusal)
            self.assertTrue(answer.reason.isascii() and answer.reason.isprintable())
            self.assertLess(len(answer.reason), 200)
        self.assertEqual(self.accepted(admission(), init(host_name=nasty)).host_name, "x??[2J?" + "y" * 248)

    def test_validator_for_a_graceful_close(self) -> None:
        door = admission()
        self.assertIs(door.close_validator(CloseProof("a", "static", "x"), "c"), FIXED)
        for proof in (None, CloseProof("a"), CloseProof("a", "magic", "x")):
            self.assertIsNone(door.close_validator(proof, "c"))

    def test_a_policy_of_no_need(self) -> None:
        """It counts where none is demanded only, for a graceful close as well."""
        asked = []

        def find_other(policy: str) -> Validator | None:
            asked.append(policy)
            return FIXED if policy == "magic" else None

        door = Admission(CLUSTERS.__contains__, {"static": FIXED}, "", {"guarded": "static"}, find_other)
        accepted = self.accepted(door, init("c", "magic", "anna"))
        self.assertEqual(accepted.principal, Principal("magic", "anna"))
        self.refused(door, init("c", "magic", "wrong"), Status.CREDENTIAL_REJECTED, "rejected")
        self.refused(door, init("c", "other", "anna"), Status.VALIDATOR_MISSING, "no validator")
        self.assertIs(door.close_validator(CloseProof("a", "magic", "x"), "c"), FIXED)
        asked.clear()
        self.refused(door, init("guarded", "magic", "anna"), Status.VALIDATOR_MISSING, "no validator")
        self.assertIsNone(door.close_validator(CloseProof("a", "magic", "x"), "guarded"))
        self.accepted(door, init("c"))
        self.assertEqual(asked, [])

    def test_a_good_credential_of_nobody(self) -> None:
        """It proves nothing, so that nothing belongs to who has it."""
        door = Admission(CLUSTERS.__contains__, {"static": Validator(all=Identity(""))})
        self.assertIsNone(self.accepted(door, init("c", "static", "all")).principal)
        proof = CloseProof("a", "static", "all")
        self.assertIsNone(Requester.of(ConnectionInfo("1.1.1.1:1", "x"), proof, Identity("")).principal)


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
) -> HeldConnection[str]:
    info = ConnectionInfo(remote, "9.9.9.9:1", identity=tls)
    announcement = None if agent is None else Announcement(agent, local)
    return HeldConnection(f"host {remote}", cluster, info, principal, announcement, policy)


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
    def registry(self, *connections: HeldConnection[str]) -> Registry[str]:
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

    def test_kin(self) -> None:
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
        self.assertEqual(registry._kin, {})

    def test_kin_over_a_unix_socket(self) -> None:
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
