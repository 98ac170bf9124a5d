"""Own hosts first, as far as that is fair; and the same agent for the same key, on all servers."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.agent_ring import AgentOrder, AgentRing
from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.balancers.fleet import (
    SATURATED,
    FleetBalancer,
    FleetView,
    own_share,
    surpluses,
)
from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer, WeightedRoundRobinBalancer
from reverseproxy.config.models import ClusterConfig
from reverseproxy.interfaces import PickContext
from tests.cluster.fakes import FakeHost


class Host(FakeHost):
    server = ""

    def __init__(self, agent: str, server: str = "", weight: int = 1) -> None:
        super().__init__(f"{server}/{agent}", weight=weight)
        self.agent = agent
        self.server = server


def name_of(host: Any) -> str:
    return str(host.agent)


class ShareTests(SynchronousTestCase):
    def test_examples(self) -> None:
        self.assertEqual(own_share(4, 1, 10), 0.4)
        self.assertEqual(own_share(2, 1, 2), 1.0)
        self.assertEqual(own_share(2, 5, 6), 1.0)
        self.assertEqual(own_share(3, 0, 6), 0.0)
        self.assertEqual(own_share(1, 0, 0), 1.0)

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any))
    def test_nobody_gets_more_than_all_servers_together_would_give(self, weights: list[int]) -> None:
        total, servers = sum(weights), len(weights)
        for own in weights:
            share = own_share(servers, own, total)
            self.assertTrue(0.0 <= share <= 1.0)
            # With as many requests at each server, 1 / servers of all come here.
            self.assertLessEqual(share / servers, max(own / total, 1 / servers) + 1e-9)
            if own / total < 1 / servers:
                self.assertApproximates(share / servers, own / total, 1e-9)

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 1000), min_size=2, max_size=20).filter(any))
    def test_agents_get_what_their_weights_say(self, weights: list[int]) -> None:
        servers, total = len(weights), sum(weights)
        named = {str(place): weight for place, weight in enumerate(weights)}
        got = dict.fromkeys(named, 0.0)
        for server, own in named.items():
            share = own_share(servers, own, total)
            got[server] += share / servers
            found = surpluses(servers, named, total)
            for other, surplus in found.items():
                got[other] += (1 - share) / servers * surplus / sum(found.values())
        for server, weight in named.items():
            self.assertApproximates(got[server], weight / total, 1e-6)


class Servers:
    """Some servers, each with a balancer that knows the agents of all."""

    def __init__(
        self, agents: dict[str, list[tuple[str, int]]], kind: str = "LB_WEIGHTED_ROUNDROBIN"
    ) -> None:
        self.balancers = {}
        for server in agents:
            view = FleetView(lambda: len(agents), name_of)
            config = ClusterConfig(name="c", lb_type=kind)
            balancer = self.balancers[server] = make_balancer(config, Random(1), fleet=view)
            for other, hosts in agents.items():
                for agent, weight in hosts:
                    balancer.add(Host(agent, "" if other == server else other, weight))

    def spread(self, requests: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for balancer in self.balancers.values():
            for _ in range(requests):
                found[name_of(balancer.pick(None))] += 1
        return found


class FairnessTests(SynchronousTestCase):
    def test_equal_parts_stay_at_home(self) -> None:
        servers = Servers({"a": [("1", 1)], "b": [("2", 1)]})
        self.assertEqual(servers.balancers["a"].pick(None).agent, "1")
        self.assertEqual(servers.spread(100), Counter({"1": 100, "2": 100}))

    def test_a_smaller_part_forwards_the_rest(self) -> None:
        servers = Servers({"a": [("1", 1)], "b": [("2", 1), ("3", 1), ("4", 1)]})
        spread = servers.spread(4000)
        for agent in "1234":
            self.assertApproximates(spread[agent], 2000, 150)

    def test_weights(self) -> None:
        servers = Servers({"a": [("1", 10)], "b": [("2", 30)], "c": []})
        spread = servers.spread(3000)
        self.assertApproximates(spread["1"] / spread["2"], 1 / 3, 0.05)

    def test_weights_that_do_not_count(self) -> None:
        servers = Servers({"a": [("1", 1)], "b": [("2", 1), ("3", 1)]}, "LB_ROUNDROBIN")
        own = next(iter(servers.balancers["a"]._weights))  # type: ignore[attr-defined]
        servers.balancers["a"].remove(own)
        own.weight = 100
        servers.balancers["a"].add(own)
        spread = servers.spread(3000)
        for agent in "123":
            self.assertApproximates(spread[agent], 2000, 150)

    def test_others_when_there_is_no_own_one(self) -> None:
        servers = Servers({"a": [], "b": [("2", 1)]})
        self.assertEqual(servers.balancers["a"].pick(None).agent, "2")

    def test_servers_that_are_not_reached(self) -> None:
        """None of their hosts is chosen, though they are still there."""
        reached = {"b", "c"}
        balancer = FleetBalancer(
            RoundRobinBalancer(),
            WeightedRoundRobinBalancer,
            Random(1).random,
            lambda: 3,
            lambda host: 1,
            reached.__contains__,
        )
        for server, count in (("b", 20), ("c", 1)):
            for number in range(count):
                balancer.add(Host(f"{number}", server))
        reached.remove("b")
        self.assertEqual({balancer.pick(None).server for _ in range(20)}, {"c"})
        reached.remove("c")
        self.assertIsNone(balancer.pick(None))
        own = Host("1")
        balancer.add(own)
        self.assertEqual({balancer.pick(None) for _ in range(20)}, {own})

    def test_others_when_own_ones_are_busy_or_tried(self) -> None:
        own, other = Host("1"), Host("2", "b")
        balancer = FleetBalancer(
            RoundRobinBalancer(), WeightedRoundRobinBalancer, lambda: 0.0, lambda: 2, lambda host: 1
        )
        balancer.add(own)
        balancer.add(other)
        self.assertIs(balancer.pick(None), own)
        self.assertIs(balancer.pick(PickContext(tried={own})), other)
        balancer.suspend(own)
        self.assertIs(balancer.pick(None), other)
        balancer.resume(own)
        self.assertIs(balancer.pick(None), own)
        own.active = SATURATED
        self.assertIs(balancer.pick(None), other)
        other.active = SATURATED
        self.assertIs(balancer.pick(None), own)
        balancer.remove(own)
        self.assertIs(balancer.pick(None), other)
        balancer.remove(other)
        self.assertIsNone(balancer.pick(None))
        self.assertEqual(balancer.share, 1.0)

    def test_a_weight_that_changes(self) -> None:
        balancer = FleetBalancer(
            WeightedRoundRobinBalancer(),
            WeightedRoundRobinBalancer,
            lambda: 0.0,
            lambda: 2,
            lambda host: host.weight,
        )
        own, other = Host("1", weight=1), Host("2", "b", weight=3)
        balancer.add(own)
        balancer.add(other)
        self.assertEqual(balancer.share, 0.5)
        balancer.remove(other)
        other.weight = 1
        balancer.add(other)
        self.assertEqual(balancer.share, 1.0)
        other.weight = 7  # changed behind its back: what was added is taken away
        balancer.remove(other)
        self.assertEqual(balancer.share, 1.0)


AGENTS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), st.sets(st.integers(0, 2), min_size=1), min_size=1, max_size=20
)
KEYS = st.lists(st.binary(max_size=8), min_size=1, max_size=20)


class RingTests(SynchronousTestCase):
    def rings(self, agents: dict[str, set[int]]) -> list[tuple[AgentRing, list[Host]]]:
        """What each of three servers makes of the same agents."""
        found = []
        for server in range(3):
            ring = AgentRing(RoundRobinBalancer(), name_of)
            hosts = [
                Host(agent, "" if place == server else str(place))
                for agent, places in sorted(agents.items(), reverse=server == 1)
                for place in sorted(places)
            ]
            for host in hosts:
                ring.add(host)
            found.append((ring, hosts))
        return found

    @settings(max_examples=30)
    @given(AGENTS, KEYS)
    def test_all_servers_agree(self, agents: dict[str, set[int]], keys: list[bytes]) -> None:
        rings = self.rings(agents)
        for key in keys:
            picked = [ring.pick(PickContext(hash_key=key)) for ring, _ in rings]
            self.assertEqual(len({name_of(host) for host in picked}), 1)
            for server, host in enumerate(picked):
                # Its own connection, where there is one.
                self.assertEqual(not host.server, server in agents[host.agent])

    @settings(max_examples=30)
    @given(AGENTS, KEYS, st.randoms(use_true_random=False))
    def test_suspended_ones_are_left_out_and_come_back(
        self, agents: dict[str, set[int]], keys: list[bytes], random: Random
    ) -> None:
        ring, hosts = self.rings(agents)[0]
        before = [name_of(ring.pick(PickContext(hash_key=key))) for key in keys]
        out = [host for host in hosts if random.random() < 0.5]
        for host in out:
            ring.suspend(host)
        left = {host for host in hosts if host not in out}
        for key in keys:
            self.assertIn(ring.pick(PickContext(hash_key=key)), left or {None})
        for host in out:
            ring.resume(host)
        self.assertEqual(before, [name_of(ring.pick(PickContext(hash_key=key))) for key in keys])
        for host in hosts:
            ring.remove(host)
        self.assertIsNone(ring.pick(PickContext(hash_key=b"")))
        self.assertIsNone(ring.pick(None))

    @settings(max_examples=30)
    @given(AGENTS, st.binary(max_size=4))
    def test_tried_ones_are_not_picked_again(self, agents: dict[str, set[int]], key: bytes) -> None:
        ring, hosts = self.rings(agents)[0]
        context = PickContext(hash_key=key)
        found = []
        while (host := ring.pick(context)) is not None:
            found.append(host)
            context.tried.add(host)
        self.assertEqual(set(found), set(hosts))
        self.assertEqual(len(found), len(hosts))

    def test_again_goes_to_another_agent(self) -> None:
        ring, _ = self.rings({"a": {0, 1}, "b": {0}})[0]
        context = PickContext(hash_key=b"x")
        first, second, third = (name_of(ring.pick(context)) for _ in range(3))
        self.assertNotEqual(first, second)
        self.assertEqual(first, third)

    def test_servers_that_are_not_reached(self) -> None:
        """Their agents are passed over, and where they are nearly all, any other one takes the request."""
        reached = {"b", "c"}
        turns = FleetBalancer(
            RoundRobinBalancer(),
            WeightedRoundRobinBalancer,
            Random(1).random,
            lambda: 3,
            lambda host: 1,
            reached.__contains__,
        )
        ring = AgentRing(turns, name_of, reached.__contains__)
        for number in range(500):
            ring.add(Host(f"{number}", "b"))
        ring.add(Host("0", "c"))
        keys = [PickContext(hash_key=b"%d" % number) for number in range(50)]
        self.assertEqual({ring.pick(each).server for each in keys[:25]}, {"b"})
        reached.remove("b")
        self.assertEqual({ring.pick(each).server for each in keys}, {"c"})
        reached.clear()
        self.assertIsNone(ring.pick(keys[0]))

    def test_without_a_key(self) -> None:
        ring, hosts = self.rings({"a": {0}, "b": {0}})[0]
        self.assertEqual({ring.pick(None), ring.pick(PickContext())}, set(hosts))

    def test_what_is_not_known(self) -> None:
        ring, _ = self.rings({"a": {0}})[0]
        stranger = Host("s")
        ring.remove(stranger)
        ring.suspend(stranger)
        ring.resume(stranger)
        self.assertEqual(name_of(ring.pick(PickContext(hash_key=b"x"))), "a")


class OrderTests(SynchronousTestCase):
    """Requests begin with the same agent at all servers."""

    def order(self, server: int, *agents: tuple[str, int]) -> AgentOrder:
        found = AgentOrder(RoundRobinBalancer(), name_of)
        for agent, place in agents:
            found.add(Host(agent, "" if place == server else str(place)))
        return found

    def through(self, order: AgentOrder, context: PickContext) -> str:
        """The names of the agents that a request is given, one after the other, until there is none."""
        names = ""
        while (host := order.pick(context)) is not None:
            names += name_of(host)
            context.tried.add(host)
        return names

    def test_all_servers_agree(self) -> None:
        agents = [("c", 0), ("a", 1), ("d", 2), ("b", 0), ("a", 2)]
        for server in range(3):
            order = self.order(server, *sorted(agents, reverse=server == 1))
            self.assertEqual([name_of(order.pick(PickContext())) for _ in range(3)], ["a"] * 3)
            self.assertEqual(name_of(order.pick(None)), "a")
            self.assertEqual(self.through(order, PickContext()), "abcda")

    def test_own_connection_of_an_agent_first(self) -> None:
        self.assertEqual(self.order(1, ("a", 0), ("a", 1)).pick(None).server, "")

    def test_goes_on_behind_the_last(self) -> None:
        order = self.order(0, ("a", 0), ("b", 1), ("c", 0))
        context = PickContext()
        self.assertEqual([name_of(order.pick(context)) for _ in range(5)], list("abcab"))

    def test_suspended(self) -> None:
        order = self.order(0)
        hosts = [Host("a"), Host("b", "1"), Host("a", "1")]
        for host in hosts:
            order.add(host)
        order.suspend(hosts[0])
        self.assertIs(order.pick(None), hosts[2])
        order.suspend(hosts[2])
        self.assertIs(order.pick(None), hosts[1])
        order.resume(hosts[0])
        self.assertIs(order.pick(None), hosts[0])
        for host in hosts:
            order.remove(host)
        self.assertIsNone(order.pick(None))


class MakingTests(SynchronousTestCase):
    def test_every_kind(self) -> None:
        view = FleetView(lambda: 2, name_of)
        for kind in ("", "LB_RANDOM", "LB_LEAST_REQUEST", "LB_LEAST_CONNECTION", "LB_MAGLEV"):
            for workers in (1, 2):
                config = ClusterConfig(name="c", lb_type=kind)
                balancer = make_balancer(config, Random(1), workers=workers, fleet=view)
                own, other = Host("1"), Host("2", "b")
                balancer.add(own)
                balancer.add(other)
                balancer.suspend(own)
                self.assertIs(balancer.pick(None), other)
                balancer.suspend(other)
                self.assertIsNone(balancer.pick(None))
