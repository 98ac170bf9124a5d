from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.problems import Problem
from reverseproxy.tls import CertificateReloader, ClientTls, IReloadable, ServerTls
from tests.certs import Certificates


@implementer(IReloadable)
class Counter:
    def __init__(self, changed: bool = False) -> None:
        self.looks = 0
        self.changed = changed

    def reload_if_changed(self) -> bool:
        self.looks += 1
        return self.changed

    def expiring(self) -> list[tuple[Problem, bool]]:
        return []


@implementer(IReloadable)
class Broken:
    def reload_if_changed(self) -> bool:
        raise RuntimeError("broken")

    def expiring(self) -> list[tuple[Problem, bool]]:
        return []


class ReloaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.counter = Counter()
        self.reloader = CertificateReloader(self.clock, [self.counter], interval=10.0)

    def test_interfaces(self) -> None:
        certs = Certificates(Path(self.mktemp()))
        verifyObject(IReloadable, ServerTls([certs.server_context()]))
        verifyObject(IReloadable, ClientTls(certs.client_context(), "localhost"))

    def test_looks_from_time_to_time(self) -> None:
        self.reloader.start()
        self.assertEqual(self.counter.looks, 0)
        self.clock.pump([10] * 3)
        self.assertEqual(self.counter.looks, 3)
        self.reloader.stop()
        self.clock.pump([10] * 3)
        self.assertEqual(self.counter.looks, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again(self) -> None:
        for _ in range(2):
            self.reloader.start()
            self.reloader.start()
            self.clock.advance(10)
            self.reloader.stop()
            self.reloader.stop()
        self.assertEqual(self.counter.looks, 2)

    def test_contexts_come_and_go(self) -> None:
        other = Counter(changed=True)
        self.reloader.add(other)
        self.assertEqual(self.reloader.poll(), 1)
        self.reloader.remove(self.counter)
        self.reloader.poll()
        self.assertEqual((self.counter.looks, other.looks), (1, 2))
        self.assertRaises(ValueError, self.reloader.remove, self.counter)

    def test_one_that_fails_is_in_nobody_s_way(self) -> None:
        reloader = CertificateReloader(self.clock, [Broken(), self.counter])
        reloader.start()
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual(self.counter.looks, 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        reloader.stop()

    def test_files(self) -> None:
        certs = Certificates(Path(self.mktemp()))
        server = ServerTls([certs.server_context()])
        reloader = CertificateReloader(self.clock, [server], interval=5)
        reloader.start()
        before = server.select("", ())
        self.clock.advance(5)
        self.assertIs(server.select("", ()), before)
        certs.issue("server", "localhost")
        self.clock.advance(5)
        self.assertIsNot(server.select("", ()), before)
        reloader.stop()
