"""Tests for L{reverseproxy.tunnel.agent.http_lister}, against a real web server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.tunnel.agent.http_lister import MAX_BODY, HttpListerPlugin
from reverseproxy.tunnel.plugins import find_lister


class Service(Resource):
    """Answers what the test wants, and knows when it was asked."""

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[int, bytes]] = []
        self.headers: list[str | None] = []
        self.silent = False
        self.asked: list[Deferred[None]] = []

    def render_GET(self, request: Any) -> Any:
        self.headers.append(request.getHeader("authorization"))
        for waiting in self.asked[: len(self.headers)]:
            if not waiting.called:
                waiting.callback(None)
        if self.silent:
            return NOT_DONE_YET
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        request.setResponseCode(status)
        return body


class HttpListerTests(TestCase):
    def setUp(self) -> None:
        self.service = Service()
        port = reactor.listenTCP(0, Site(self.service), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/servers"
        self.updates: list[Sequence[str]] = []

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0.005)

    def start(self, **config: Any) -> IServerLister:
        lister = HttpListerPlugin().build("blue", {"url": self.url, "interval": 0.1, **config}, reactor)
        lister.start(self.updates.append)
        self.addCleanup(lister.stop)
        return lister

    async def test_lists(self) -> None:
        self.service.answers = [
            (200, b'["a:1", "b:2"]'),
            (200, b'{"servers": ["c:3"]}'),
        ]
        self.start(headers={"Authorization": "Bearer x"})
        await self.until(lambda: len(self.updates) >= 2)
        self.assertEqual(self.updates[:2], [["a:1", "b:2"], ["c:3"]])
        self.assertEqual(set(self.service.headers), {"Bearer x"})

    async def test_bad_answers_change_nothing(self) -> None:
        self.service.answers = [
            (500, b'["a:1"]'),
            (200, b"{"),
            (200, b"[" * 100_000),
            (200, b'"a:1"'),
            (200, b'{"hosts": []}'),
            (200, b"[" + b" " * MAX_BODY + b"]"),
            (200, b'["good:1"]'),
        ]
        self.start()
        await self.until(lambda: self.updates)
        self.assertEqual(self.updates[0], ["good:1"])
        self.assertGreaterEqual(len(self.service.headers), 7)

    async def test_a_service_that_does_not_answer(self) -> None:
        self.service.silent = True
        lister = self.start(timeout=0.1)
        await self.until(lambda: len(self.service.headers) >= 2)
        lister.stop()  # and nothing is left to do, or the reactor would not be clean
        self.assertEqual(self.updates, [])

    async def test_stop_between_two_requests(self) -> None:
        self.service.answers = [(200, b'["a:1"]')]
        lister = self.start()
        await self.until(lambda: self.updates)
        lister.stop()
        lister.stop()
        self.assertEqual(len(self.updates), 1)


class ConfigTests(SynchronousTestCase):
    def test_interface(self) -> None:
        self.assertTrue(IServerListerPlugin.providedBy(HttpListerPlugin()))
        self.assertTrue(IServerLister.providedBy(find_lister("http", "c", {"url": "http://x/"}, reactor)))

    def test_bad_configurations(self) -> None:
        for config, message in (
            ({}, "url: must be an http or https URL, not null"),
            ({"url": "ftp://x"}, 'url: must be an http or https URL, not the text "ftp://x"'),
            ({"url": "http://x", "port": 1}, "port: unknown key"),
            ({"url": "http://x", "interval": 0}, "interval: must be a number of seconds"),
            ({"url": "http://x", "timeout": True}, "timeout: must be a number of seconds"),
            ({"url": "http://x", "headers": ["a"]}, "headers: must map names to values, not a list"),
            ({"url": "http://x", "headers": {"a": 1}}, "headers.a: must be a text"),
            ({"url": "http://x", "headers": {"a": "b\r\nc: d"}}, "headers.a: must be a text"),
            ({"url": "http://x", "headers": {"a b": "c"}}, r"headers\[.a b.\]: is no name"),
            ({"url": "http://"}, "url: must be"),
            ({"url": "http://x:70000/"}, "url: must be"),
            ({"url": "http://x/ y"}, "url: must be"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                HttpListerPlugin().build("c", config, reactor)
