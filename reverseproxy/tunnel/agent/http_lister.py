"""The server lister C{http}, which asks a web service."""

from __future__ import annotations

__all__ = ["HttpListerPlugin"]

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.config._headers import is_header_name, is_header_value
from reverseproxy.config._values import describe
from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.tunnel.agent.polling import PollingLister
from reverseproxy.tunnel.plugin_options import Options

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

        @raise OptionsError: if C{config} is invalid.
        """
        options = Options(config, _KEYS)
        url = config.get("url")
        if not _is_url(url):
            options.error("url", f"must be an http or https URL, not {describe(url)}")
        headers = config.get("headers", {})
        if not isinstance(headers, Mapping):
            options.error("headers", f"must map names to values, not {describe(headers)}")
            headers = {}
        for name, value in headers.items():
            place = options.place / "headers" / name
            # Values may be secrets.
            if not is_header_name(name):
                options.findings.error(place, "is no name of a header field")
            elif not isinstance(value, str) or not is_header_value(value):
                options.findings.error(place, "must be a text that a header field can have")
        interval = options.seconds("interval", INTERVAL, 0.1)
        timeout = options.seconds("timeout", TIMEOUT, 0.1)
        options.raise_errors()
        return _HttpLister(str(url), headers, interval, timeout, cluster, reactor)


def _is_url(text: object) -> bool:
    """Return whether a text is a URL that can be asked for."""
    if not isinstance(text, str) or not text.startswith(("http://", "https://")):
        return False
    if not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
