"""curl's library as a client of HTTP/2: it is what most people try a proxy with first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from itertools import repeat
from typing import Any

import pycurl

from tests.integration.backend import pattern
from tests.integration.clients import threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase, certificates
from tests.integration.http2_configs import spoken

PRIOR_KNOWLEDGE = pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
HTTP2 = pycurl.CURL_HTTP_VERSION_2_0
"""What C{--http2} means: ALPN over TLS, and an Upgrade without."""
HTTP2_TLS = pycurl.CURL_HTTP_VERSION_2TLS
HTTP1 = pycurl.CURL_HTTP_VERSION_1_1

VERSIONS = {pycurl.CURL_HTTP_VERSION_1_1: "1.1", pycurl.CURL_HTTP_VERSION_2_0: "2"}


@dataclass
class Answer:
    """
    What one request got.

    @ivar version: of HTTP.
    @ivar connects: how many connections were made for it.
    """

    status: int = 0
    version: str = ""
    connects: int = 0
    body: bytes = b""
    headers: list[bytes] = field(default_factory=list)


class Curl:
    """One handle: requests on the same connection, one after the other."""

    def __init__(self, base: str, version: int, authority: str = "") -> None:
        self.base = base
        self.handle: Any = pycurl.Curl()
        self.handle.setopt(pycurl.HTTP_VERSION, version)
        self.handle.setopt(pycurl.TIMEOUT, int(DEADLINE))
        self.handle.setopt(pycurl.NOPROXY, "*")
        if authority:
            self.handle.setopt(pycurl.CAINFO, authority)

    def prepare(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[Any, BytesIO]:
        """Make everything ready for a request."""
        received = BytesIO()
        self.headers: list[bytes] = []
        handle = self.handle
        handle.setopt(pycurl.URL, self.base + path)
        handle.setopt(pycurl.WRITEDATA, received)
        handle.setopt(pycurl.HEADERFUNCTION, self.headers.append)
        handle.setopt(pycurl.UPLOAD, body is not None)
        if body is not None:
            handle.setopt(pycurl.READDATA, BytesIO(body))
            handle.setopt(pycurl.INFILESIZE_LARGE, len(body))
        handle.setopt(pycurl.NOBODY, method == "HEAD")
        if method == "HEAD":
            handle.unsetopt(pycurl.CUSTOMREQUEST)
        else:
            handle.setopt(pycurl.CUSTOMREQUEST, method)
            if body is None:
                handle.setopt(pycurl.HTTPGET, True)
        return handle, received

    def answer(self, received: BytesIO) -> Answer:
        """What came."""
        handle = self.handle
        return Answer(
            handle.getinfo(pycurl.RESPONSE_CODE),
            VERSIONS.get(handle.getinfo(pycurl.INFO_HTTP_VERSION), "?"),
            handle.getinfo(pycurl.NUM_CONNECTS),
            received.getvalue(),
            self.headers,
        )

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> Answer:
        """Send a request, and wait for the answer."""
        handle, received = self.prepare(path, method, body)
        handle.perform()
        return self.answer(received)


def at_once(
    curls: Iterable[Curl], path: str, method: str = "GET", bodies: Iterable[bytes | None] = repeat(None)
) -> list[Answer]:
    """Ask with many handles at once, over one connection."""
    multi: Any = pycurl.CurlMulti()
    multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
    multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, 1)
    under_way = []
    for curl, body in zip(curls, bodies, strict=False):
        handle, received = curl.prepare(path, method, body)
        handle.setopt(pycurl.PIPEWAIT, True)
        multi.add_handle(handle)
        under_way.append((curl, received))
    while multi.perform()[1]:
        multi.select(1.0)
    failed = multi.info_read(len(under_way))[2]
    assert not failed, failed
    for curl, _ in under_way:
        multi.remove_handle(curl.handle)
    return [curl.answer(received) for curl, received in under_way]


class CurlTests(IntegrationTestCase):
    async def start(self, tunnel: str, **more: Any) -> int:
        """
        Start backend, server and agent.

        @param tunnel: what is spoken in the tunnel.
        @return: the port for clients.
        """
        backend = await self.run_backend()
        self.cloud = self.run_proxy(spoken(server(**more), "Http1,Http2", tunnel), "server")
        config = quick_agent(await self.cloud.port("tunnelListener"), backend.address, connections=4)
        self.run_proxy(spoken(config, tunnel, "Http1"), "agent")
        await self.cloud.counted(JOINED, 4)
        return await self.cloud.port("clientListener")

    def check(self, curl: Curl, version: str) -> None:
        """Requests of all kinds, over one connection."""
        answer = curl.ask("/bytes?n=1000")
        self.assertEqual((answer.version, answer.status, answer.body), (version, 200, pattern(1000)))
        self.assertEqual(answer.connects, 1)
        for method, path, body, expected in (
            ("POST", "/echo", b"", b""),
            ("POST", "/echo", pattern(1_000_000), pattern(1_000_000)),
            ("PUT", "/echo", b"x", b"x"),
            ("GET", "/chunks?n=20&size=5000", None, pattern(5000) * 20),
            ("HEAD", "/bytes?n=1000", None, b""),
            ("GET", "/bytes?n=3000000", None, pattern(3_000_000)),
        ):
            answer = curl.ask(path, method, body)
            self.assertEqual((answer.version, answer.status, answer.body), (version, 200, expected))
            self.assertEqual(answer.connects, 0, (method, path))

    def check_many(self, url: str) -> None:
        """Many requests at once: one connection of the client carries all of a round."""
        curls = [Curl(url, PRIOR_KNOWLEDGE) for _ in range(100)]
        answers = [answer for _ in range(5) for answer in at_once(curls, "/bytes?n=5000")]
        self.assertEqual({(a.version, a.status, a.body) for a in answers}, {("2", 200, pattern(5000))})
        self.assertEqual((len(answers), sum(a.connects for a in answers)), (500, 5))

    def check_upgrade(self, url: str) -> None:
        """What C{--http2} asks for without TLS is not there any more: it gets HTTP/1.1."""
        self.check(Curl(url, HTTP2), "1.1")
        fields = Curl(url, HTTP2).ask("/headers").body.lower()
        self.assertNotIn(b"upgrade", fields)
        self.assertNotIn(b"http2-settings", fields)

    def check_early(self, url: str) -> None:
        """An answer before the end of the request."""
        answer = Curl(url, PRIOR_KNOWLEDGE).ask("/early", "PUT", pattern(5_000_000))
        self.assertEqual((answer.version, answer.status), ("2", 413))

    async def test_plaintext(self) -> None:
        for tunnel in ("Http1", "Http2"):
            url = f"http://127.0.0.1:{await self.start(tunnel)}"
            await threaded(self.check, Curl(url, PRIOR_KNOWLEDGE), "2")
            for check in (self.check_many, self.check_upgrade, self.check_early):
                await threaded(check, url)

    async def test_alpn(self) -> None:
        authority = certificates(self.directory)
        chain, key = authority.issue("127.0.0.1")
        tls = {"status": True, "cert_chain": chain, "private_key": key, "alpn": "h2,http/1.1"}
        url = f"https://127.0.0.1:{await self.start('Http2', client_tls=tls)}"
        await threaded(self.check, Curl(url, HTTP2_TLS, authority.ca_file), "2")
        await threaded(self.check, Curl(url, HTTP1, authority.ca_file), "1.1")

    async def test_weak_encryption(self) -> None:
        """HTTP/2 is too good for it; HTTP/1.1 is not."""
        authority = certificates(self.directory)
        chain, key = authority.issue("127.0.0.1")
        tls = {"status": True, "cert_chain": chain, "private_key": key, "alpn": "h2,http/1.1"}
        tls["cipher_suites"] = "ECDHE-ECDSA-AES128-CBC-SHA"
        url = f"https://127.0.0.1:{await self.start('Http2', client_tls=tls)}"

        def weak(version: int) -> Answer:
            curl = Curl(url, version, authority.ca_file)
            curl.handle.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_MAX_TLSv1_2)
            curl.handle.setopt(pycurl.SSL_CIPHER_LIST, "ECDHE-ECDSA-AES128-SHA")
            return curl.ask("/bytes?n=1")

        self.assertEqual((await threaded(weak, HTTP1)).status, 200)
        with self.assertRaises(pycurl.error):
            await threaded(weak, HTTP2_TLS)
        await self.cloud.logged("wants HTTP/2 with ECDHE-ECDSA-AES128-SHA, which is too weak for it")
