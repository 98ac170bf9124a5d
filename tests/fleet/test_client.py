"""The client of etcd, without an etcd: which endpoint it dials, and when it gives up."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import EtcdError


class ClientTests(SynchronousTestCase):
    """Endpoints that do not answer."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()

    def dialled(self) -> list[tuple[str, int]]:
        """Where connections were to go."""
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    def test_addresses(self) -> None:
        """Those of IPv6 are no names, in a URL neither."""
        for endpoint, found in (("[::1]:2379", ("::1", 2379)), ("127.0.0.1:1", ("127.0.0.1", 1))):
            asking = Deferred.fromCoroutine(Etcd(self.reactor, [endpoint]).revision("/"))
            self.assertEqual(self.dialled()[-1], found)
            asking.addErrback(lambda _: None)
            asking.cancel()

    def test_one_after_the_other(self) -> None:
        """Each has its time, and the last reason is told."""
        etcd = Etcd(self.reactor, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], timeout=2)
        left: list[str] = []
        etcd.on_left = left.append
        asking = Deferred.fromCoroutine(etcd.revision("/"))
        for number in (1, 2, 3):
            self.assertEqual(self.dialled()[-1], ("127.0.0.1", number))
            self.assertNoResult(asking)
            self.reactor.advance(2.1)
        error = self.failureResultOf(asking, EtcdError).value
        self.assertIn("no answer", str(error))
        self.assertEqual((etcd.failures, len(left), etcd.endpoint), (3, 3, "127.0.0.1:1"))

    def test_watch_that_does_not_begin(self) -> None:
        """The next one begins elsewhere."""
        etcd = Etcd(self.reactor, ["127.0.0.1:1", "127.0.0.1:2"], timeout=2)
        watch = etcd.watch("/", 1, lambda message: None)
        self.reactor.advance(2.1)
        self.failureResultOf(watch.ended, EtcdError)
        self.assertEqual(etcd.endpoint, "127.0.0.1:2")
