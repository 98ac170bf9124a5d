"""Tests for L{reverseproxy.tunnel.server.pending}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.server.pending import PendingConnections


class Silent:
    """A connection that says nothing."""

    expendable = True

    def __init__(self, pending: PendingConnections, address_key: str) -> None:
        self.address_key = address_key
        self.objection = ""
        self.dropped: list[str] = []
        self._pending = pending
        pending.add(self)

    def transport_objection(self) -> str:
        return self.objection

    def drop(self, reason: str) -> None:
        self.dropped.append(reason)
        self._pending.discard(self)


class PendingTests(SynchronousTestCase):
    def test_who_makes_room(self) -> None:
        """The oldest one of the address that has most of them."""
        pending = PendingConnections(3)
        one, *others = [Silent(pending, address_key) for address_key in ("a", "b", "b", "c")]
        self.assertEqual([len(each.dropped) for each in (one, *others)], [0, 1, 0, 0])
        self.assertEqual((len(pending), set(pending)), (3, {one, *others[1:]}))
        pending.discard(others[0])
        self.assertEqual(len(pending), 3)

    def test_take_over(self) -> None:
        pending = PendingConnections(1)
        pending.take_over(PendingConnections(2))
        self.assertEqual(pending.most, 2)
        self.assertEqual([Silent(pending, "a").dropped for _ in range(2)], [[], []])

    def test_recheck(self) -> None:
        """Those go that may not stay as they are."""
        pending = PendingConnections(9)
        stays, goes = Silent(pending, "a"), Silent(pending, "b")
        goes.objection = "it is not encrypted"
        pending.recheck()
        self.assertEqual((stays.dropped, goes.dropped), ([], ["it is not encrypted"]))
        self.assertEqual(list(pending), [stays])
