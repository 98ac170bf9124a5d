"""The server lister C{http}, which asks a web service."""

from __future__ import annotations

__all__ = ["HttpListerPlugin"]

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.tunnel.agent.polling import PollingLister, check_keys, read_seconds

log = Logger()

INTERVAL = 30.0
"""Seconds between two requests, by default."""

TIMEOUT = 10.0
"""Seconds for one request and its response, by default."""

MAX_BODY = 1024 * 1024
"""Bytes of a response body, at most."""

_KEYS = ("url", "interval", "timeout", "headers")


class _BadAnswer(Exception):
    """The response has no list of servers."""


class _HttpLister(PollingLister):
    """Asks a web service."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        interval: float,
        timeout: float,
        cluster: str,
        reactor: Any,
    ) -> None:
        super().__init__(interval, reactor)
        self._url = url
        self._headers: dict[bytes | str, bytes | str] = dict(headers.items())
        self._timeout = timeout
        self._cluster = cluster

    def failed(self, error: Exception) -> None:
        """Log the error; see L{PollingLister.failed}."""
        log.error(
            "agent of cluster {cluster}: no list of servers from {url}, known ones stay in use: {reason}",
            cluster=self._cluster,
            url=self._url,
            reason=str(error) or type(error).__name__,
        )

    async def fetch(self) -> Sequence[Any]:
        """Send a request; see L{PollingLister.fetch}."""
        return await Deferred.fromCoroutine(self._fetch()).addTimeout(self._timeout, self._reactor)

    async def _fetch(self) -> list[Any]:
        # The import loads all of Twisted's web client: only this lister needs it.
        import treq

        response = await treq.get(
            self._url, headers=self._headers, reactor=self._reactor, persistent=False, unbuffered=True
        )
        body = bytearray()

        def collect(data: bytes) -> None:
            body.extend(data)
            if len(body) > MAX_BODY:
                raise _BadAnswer(f"the answer is larger than {MAX_BODY} bytes")

        await treq.collect(response, collect)
        if response.code != 200:
            raise _BadAnswer(f"it answered with status {response.code}")
        try:
            document = json.loads(bytes(body))
        except (ValueError, RecursionError):
            raise _BadAnswer("the answer is not JSON") from None
        if isinstance(document, Mapping):
            document = document.get("servers")
        if not isinstance(document, list):
            raise _BadAnswer('the answer is neither a list nor an object with a list under "servers"')
        return document


@implementer(IServerListerPlugin)
class HttpListerPlugin:
    """
    Servers from a web service: C{config} has C{url}, and optionally C{interval} and C{timeout} in
    seconds, and C{headers} to send.

    The response is JSON: a list of C{host:port}, or an object with such a list under the key C{servers}.
    Over C{https} the service's certificate is verified with the system's roots.
    """

    name: ClassVar[str] = "http"

    def build(self, cluster: str, config: Mapping[str, Any], reactor: IReactorTime) -> IServerLister:
        """
        Make a lister.

        @raise ValueError: if C{config} is invalid.
        """
        check_keys("the server lister http", config, _KEYS)
        url = config.get("url")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError(f"the server lister http: url must be an http or https URL, not {url!r}")
        headers = config.get("headers", {})
        if not isinstance(headers, Mapping) or not all(
            isinstance(item, str) for pair in headers.items() for item in pair
        ):
            raise ValueError("the server lister http: headers must map names to values, all strings")
        return _HttpLister(
            url,
            headers,
            read_seconds("the server lister http", config, "interval", INTERVAL, 0.1),
            read_seconds("the server lister http", config, "timeout", TIMEOUT, 0.1),
            cluster,
            reactor,
        )
