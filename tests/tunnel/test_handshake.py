"""Tests for L{reverseproxy.tunnel.handshake}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.interfaces import ConnectionInfo, IConnectionValidator, Identity
from reverseproxy.tunnel.handshake import Accepted, Admission, Principal, Refusal
from reverseproxy.tunnel.server.registry import Requester
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof
from reverseproxy.wire.mosn.frames import ConnectionInit, InitResponse, Status


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
