"""Tests for L{reverseproxy.limits.connection_limit}."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.limits.connection_limit import ConnectionLimit, Descriptors, address_key


@dataclass(eq=False)
class Member:
    expendable: bool = True


class CrowdTests(SynchronousTestCase):
    def test_whoever_has_most_makes_room(self) -> None:
        crowd: ConnectionLimit[Member] = ConnectionLimit(5)
        single, *many = [Member() for _ in range(5)]
        crowd.add("b", single)
        for member in many:
            crowd.add("a", member)
        self.assertTrue(crowd.is_full("c"))
        self.assertEqual(crowd.victim("c"), ("a", many[0]))

    def test_what_is_under_way_stays(self) -> None:
        crowd: ConnectionLimit[Member] = ConnectionLimit(2)
        busy, idle = Member(False), Member()
        crowd.add("a", busy)
        crowd.add("a", idle)
        self.assertEqual(crowd.victim("a"), ("a", idle))
        idle.expendable = False
        self.assertIsNone(crowd.victim("a"))

    def test_only_so_many_are_looked_at(self) -> None:
        crowd: ConnectionLimit[Member] = ConnectionLimit(1000)
        for _ in range(100):
            crowd.add("a", Member(False))
        crowd.add("a", Member())
        self.assertIsNone(crowd.victim("b"))

    def test_nobody_keeps_more_than_a_share_from_others(self) -> None:
        crowd: ConnectionLimit[Member] = ConnectionLimit(8)
        busy = [Member(False) for _ in range(8)]
        for address, member in zip("aaabbccd", busy, strict=True):
            crowd.add(address, member)
        self.assertEqual(crowd.victim("d"), ("a", busy[2]), "the newest one")
        self.assertIsNone(crowd.victim("a"), "not for itself")
        crowd.discard("a", busy[2])
        self.assertIsNone(crowd.victim("d"), "a quarter is a fair share")

    def test_by_address(self) -> None:
        crowd: ConnectionLimit[Member] = ConnectionLimit(100, most_per_address=2)
        mine = [Member(), Member()]
        for member in mine:
            crowd.add("a", member)
        for _ in range(2):
            crowd.add("b", Member())
        self.assertFalse(crowd.is_full("c"))
        self.assertTrue(crowd.is_full("a"))
        self.assertEqual(crowd.victim("a"), ("a", mine[0]), "not those of another address")

    def test_empty(self) -> None:
        crowd: ConnectionLimit[Member] = ConnectionLimit(0)
        self.assertTrue(crowd.is_full("a"))
        self.assertIsNone(crowd.victim("a"))
        crowd.discard("a", Member())
        self.assertEqual(len(crowd), 0)

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans())))
    def test_counts(self, steps: list[tuple[str, int, bool]]) -> None:
        """Whatever comes and goes, it knows how many there are and who has most."""
        crowd: ConnectionLimit[Member] = ConnectionLimit(100)
        members = {(address, number): Member() for address in "abc" for number in range(6)}
        there: dict[str, list[Member]] = {address: [] for address in "abc"}
        for address, number, comes in steps:
            member = members[address, number]
            if comes and member not in there[address]:
                crowd.add(address, member)
                there[address].append(member)
            elif not comes:
                crowd.discard(address, member)
                if member in there[address]:
                    there[address].remove(member)
        self.assertEqual(len(crowd), sum(map(len, there.values())))
        for address, known in there.items():
            self.assertEqual(crowd.count(address), len(known))
        found = crowd.victim("d")
        most = max(map(len, there.values()))
        if not most:
            self.assertIsNone(found)
        else:
            assert found is not None
            self.assertEqual(len(there[found[0]]), most)
            self.assertIs(found[1], there[found[0]][0])


class AddressTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        for host, counted in (
            ("10.0.0.7", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::1", "::/64"),
            ("", ""),
            ("no:address", "no:address"),
        ):
            self.assertEqual(address_key(host), counted)


class DescriptorsTests(SynchronousTestCase):
    def test_parts(self) -> None:
        for limit, reserve in ((64, 32), (256, 64), (1024, 256), (1 << 20, 1024), (16, 16)):
            descriptors = Descriptors(limit)
            self.assertEqual(descriptors.reserve, reserve)
            self.assertEqual(descriptors.for_strangers, max(limit - reserve, 1))
        usual = Descriptors(1024)
        self.assertEqual([usual.is_scarce(number) for number in (-1, 767, 768)], [False, False, True])
        self.assertEqual([usual.is_exhausted(number) for number in (-1, 959, 960)], [False, False, True])

    def test_raised(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        self.assertEqual(Descriptors.current().limit, 256)
        Descriptors.raise_limit()
        self.assertEqual(Descriptors.current().limit, min(before[1], 1 << 20))

    def test_no_limit_or_no_right(self) -> None:
        def refuse(*_: object) -> None:
            raise ValueError("not allowed to raise maximum limit")

        self.patch(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
        self.patch(resource, "setrlimit", refuse)
        Descriptors.raise_limit()
        self.assertEqual(Descriptors.current().limit, 256)
        self.patch(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.assertEqual(Descriptors.current().limit, 1 << 20)
