"""The client of etcd with a real one, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import trustme
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from reverseproxy.config.models import TlsContextConfig
from reverseproxy.fleet import etcd
from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import EtcdError, TooLong, WatchMessage
from reverseproxy.tls import ClientTls
from tests.fleet.real_etcd import ETCD, RealEtcd

reactor: Any = global_reactor

DEADLINE = 20.0
TTL = 2


async def until(condition: Callable[[], object], what: str = "") -> float:
    """Wait until something is so; the seconds that it took."""
    began = reactor.seconds()
    while not condition():
        if reactor.seconds() - began > DEADLINE:
            raise AssertionError(f"not within {DEADLINE} s: {what or condition}")
        await deferLater(reactor, 0.01)
    return float(reactor.seconds() - began)


class _Tests(TestCase):
    """One etcd for all tests of a class, started when it is needed first."""

    etcd: RealEtcd

    async def setUp(self) -> None:
        self.etcd = RealEtcd(mkdtemp(prefix="etcd"))
        self.addCleanup(self.etcd.stop)
        await self.etcd.start()

    def client(self, *endpoints: str, **facts: Any) -> Etcd:
        """Make a client."""
        facts.setdefault("timeout", 1.0)
        found = Etcd(reactor, endpoints or (self.etcd.endpoint,), **facts)
        self.addCleanup(found.close)
        return found


class RealClientTests(_Tests):
    """The client by itself."""

    async def test_requests(self) -> None:
        """Everything that a fleet asks for, at an endpoint behind one where nobody listens."""
        client = self.client("127.0.0.1:1", self.etcd.endpoint)
        lease = await client.grant(TTL)
        self.assertEqual(await client.keep(lease), TTL)
        puts = [(f"/t/ü{n:04}", b"\x00\xff" * 10) for n in range(1200)]
        for start in range(0, 1200, 100):
            done, revision = await client.change(puts[start : start + 100], (), lease)
        self.assertTrue(done)
        found, now = await client.range("/t/")
        self.assertEqual([(each.key, each.value) for each in found], puts)
        self.assertEqual(now, revision)
        self.assertEqual({each.lease for each in found}, {lease})
        messages: list[WatchMessage] = []
        watch = client.watch("/t/", revision + 1, messages.append)
        await until(lambda: messages and messages[0].created)
        await client.change([("/other", b"")], [puts[0][0]])
        self.assertEqual((await client.change([("/t/x", b"")], (), 0, ["/t/ü0001"]))[0], False)
        await client.revoke(lease)
        await client.revoke(lease)
        await until(lambda: sum(len(each.events) for each in messages) == 1200)
        self.assertEqual({each.value for message in messages for each in message.events}, {None})
        watch.stop()
        watch.ended.addErrback(lambda _: None)
        self.assertEqual(await client.keep(lease), 0)
        await self.assertFailure(_deferred(client.change([("/t/x", b"")], (), lease)), EtcdError)
        self.assertEqual(client.endpoint, self.etcd.endpoint)
        self.assertEqual(client.failures, 1)

        # Large values, which somebody else has written, are asked for a few at a time.
        self.patch(etcd, "MAX_ANSWER", 40_000)
        large = [(f"/large/{number:02}", b"x" * 9_000) for number in range(20)]
        await client.change(large)
        found, _ = await client.range("/large/")
        self.assertEqual([(each.key, each.value) for each in found], large)
        await client.change([("/large/10", b"x" * 40_000)])
        await self.assertFailure(_deferred(client.range("/large/")), TooLong)
        self.assertEqual(client.failures, 1)

        # what has been compacted can't be watched
        await client.call("kv/compaction", {"revision": str(await client.revision("/"))})
        old: list[WatchMessage] = []
        watch = client.watch("/t/", 2, old.append)
        await until(lambda: old and old[-1].compacted)
        watch.stop()
        watch.ended.addErrback(lambda _: None)

    async def test_user(self) -> None:
        """With a user and a password; a token that is not known any more is replaced."""
        root = self.client()
        for path, body in [
            ("auth/user/add", {"name": "root", "password": "secret"}),
            ("auth/role/add", {"name": "root"}),
            ("auth/user/grant", {"user": "root", "role": "root"}),
            ("auth/enable", {}),
        ]:
            await root.call(path, body)
        await self.assertFailure(_deferred(root.range("/t/")), EtcdError)
        client = self.client(user="root", password=lambda: "secret")
        self.assertEqual((await client.range("/t/"))[0], [])
        client._tokens = dict.fromkeys(client._tokens, "forgotten")
        self.assertEqual((await client.range("/t/"))[0], [])
        client._tokens = dict.fromkeys(client._tokens, "forgotten")
        messages: list[WatchMessage] = []
        for _ in range(2):
            watch = client.watch("/t/", 1, messages.append)
            watch.ended.addErrback(lambda _: None)
            await deferLater(reactor, 0.1)
        self.assertTrue(messages[0].created)
        watch.stop()
        wrong = self.client(user="root", password=lambda: "other")
        error = await self.assertFailure(_deferred(wrong.range("/t/")), EtcdError)
        self.assertNotIn("other", str(error))


class RealTlsTests(TestCase):
    """Etcd with TLS that wants a certificate of its clients."""

    async def test_tls(self) -> None:
        directory = Path(mkdtemp(prefix="etcd"))
        ca, other = trustme.CA(), trustme.CA()
        for name, authority in (("server", ca), ("client", ca), ("stranger", other)):
            certificate = authority.issue_cert("localhost", "127.0.0.1")
            certificate.private_key_pem.write_to_path(directory / f"{name}.key")
            certificate.cert_chain_pems[0].write_to_path(directory / f"{name}.pem")
        ca.cert_pem.write_to_path(directory / "ca.pem")
        other.cert_pem.write_to_path(directory / "other.pem")
        etcd = RealEtcd(str(directory))
        etcd.scheme = "https"
        etcd.options = [
            *("--cert-file", str(directory / "server.pem"), "--key-file", str(directory / "server.key")),
            *("--trusted-ca-file", str(directory / "ca.pem"), "--client-cert-auth"),
        ]
        self.addCleanup(etcd.stop)
        await etcd.start()

        def client(ca: str, own: str) -> Etcd:
            paths = {"ca_cert": f"{ca}.pem", "cert_chain": f"{own}.pem", "private_key": f"{own}.key"}
            context = TlsContextConfig(status=True, **{k: str(directory / v) for k, v in paths.items()})
            found = Etcd(reactor, [etcd.endpoint], tls=ClientTls(context, "localhost"), timeout=5)
            self.addCleanup(found.close)
            return found

        good = client("ca", "client")
        done, revision = await good.change([("/t/a", b"1")])
        self.assertTrue(done)
        messages: list[WatchMessage] = []
        watch = good.watch("/t/", revision, messages.append)
        await until(lambda: len(messages) == 2)
        watch.stop()
        watch.ended.addErrback(lambda _: None)
        for ca_name, own in (("ca", "stranger"), ("other", "client")):
            await self.assertFailure(_deferred(client(ca_name, own).revision("/t/")), EtcdError)


if ETCD is None:
    del RealClientTests, RealTlsTests


def _deferred(coroutine: Any) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(coroutine)
