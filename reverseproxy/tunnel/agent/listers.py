"""The built-in server listers C{file} and C{dns}."""

from __future__ import annotations

__all__ = ["DnsListerPlugin", "FileListerPlugin"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.addresses import join_host_port
from reverseproxy.config._values import describe
from reverseproxy.errors import OptionsError
from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.logs import counted
from reverseproxy.tunnel.agent.discovery import parse_server
from reverseproxy.tunnel.plugin_options import Options
from reverseproxy.tunnel.watched_documents import parse_document
from reverseproxy.tunnel.watched_files import Signature, read_text, reason_of, signature, unusable

log = Logger()

INTERVAL = 2.0
"""Seconds between two checks of a file, by default."""

MAX_LIST_FILE = 1024 * 1024
"""Bytes of a file of servers, at most."""


@implementer(IServerLister)
class _FileLister:
    """
    Servers in a file that is checked regularly.

    A change counts once the file has not changed for one interval, so that a list that is just being
    written is not taken for a complete one.
    """

    def __init__(self, path: str, interval: float, clock: IReactorTime) -> None:
        self._path = path
        self._interval = interval
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._loaded = False
        self._servers: list[Any] = []
        # Differs from any signature, so that a missing file is logged, too.
        self._seen: Signature = ()
        self._candidate: Signature = ()

    def start(self, update: Callable[[Sequence[str]], None]) -> None:
        """Start to check the file; see L{IServerLister.start}."""
        self._poll(update)

    def stop(self) -> None:
        """Stop; see L{IServerLister.stop}."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _poll(self, update: Callable[[Sequence[str]], None]) -> None:
        self._call = self._clock.callLater(self._interval, self._poll, update)
        now = signature(self._path)
        if now == self._seen:
            return
        if self._loaded and now != self._candidate:
            self._candidate = now
            return
        self._seen = now
        try:
            servers = _read_servers(self._path)
        except (OSError, OptionsError) as error:
            log.error(
                "the list of servers {path} can't be used, keeping {servers}: {reason}",
                path=self._path,
                servers=counted(len(self._servers), "server"),
                count=len(self._servers),
                reason=reason_of(error, self._path),
            )
            return
        if self._loaded and servers == self._servers:
            return
        self._loaded = True
        self._servers = servers
        update(servers)


def _read_servers(path: str) -> list[Any]:
    """
    Read a list of servers.

    @raise OSError: if the file can't be read.
    @raise OptionsError: if it has no list.
    """
    text = read_text(path, MAX_LIST_FILE)
    if not text.strip():
        # More likely truncated than meant; an empty list can be written explicitly.
        raise unusable(path, "it is empty; for no servers at all write [], or a comment line")
    if not path.endswith((".json", ".yaml", ".yml")):
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line and line != "[]"]
    document = parse_document(path, text)
    if isinstance(document, Mapping):
        document = document.get("servers")
    if not isinstance(document, list):
        wanted = 'a list of "host:port", or a mapping with such a list under the key servers'
        raise unusable(path, f"expected {wanted}")
    return document


@implementer(IServerListerPlugin)
class FileListerPlugin:
    """
    Servers from a file: C{config} has C{path}, and optionally C{interval}, the seconds between two
    checks.

    The file is JSON or YAML if its name says so (a list of C{host:port}, or a mapping with such a list
    under the key C{servers}); otherwise it has one C{host:port} a line, with C{#} for comments.
    """

    name: ClassVar[str] = "file"

    def build(self, cluster: str, config: Mapping[str, Any], reactor: IReactorTime) -> IServerLister:
        """
        Make a lister.

        @raise OptionsError: if C{config} is invalid. A missing file is not an error: it may come later.
        """
        options = Options(config, ("path", "interval"))
        path = config.get("path")
        if not isinstance(path, str) or not path:
            options.error("path", f"must be the path of a file, not {describe(path)}")
        interval = options.seconds("interval", INTERVAL, 0.1, 3600)
        options.raise_errors()
        assert isinstance(path, str)
        return _FileLister(path, interval, reactor)


@implementer(IServerLister)
class _DnsLister:
    """
    A name with all of its addresses.

    It lists the name only: L{Discovery} looks up all addresses of listed names, and TLS needs the name.
    """

    def __init__(self, server: str) -> None:
        self._server = server

    def start(self, update: Callable[[Sequence[str]], None]) -> None:
        """List the name; see L{IServerLister.start}."""
        update([self._server])

    def stop(self) -> None:
        """Do nothing; see L{IServerLister.stop}."""


@implementer(IServerListerPlugin)
class DnsListerPlugin:
    """All addresses of a host name: C{config} has C{name} and C{port}."""

    name: ClassVar[str] = "dns"

    def build(self, cluster: str, config: Mapping[str, Any], reactor: IReactorTime) -> IServerLister:
        """
        Make a lister.

        @raise OptionsError: if C{config} is invalid.
        """
        options = Options(config, ("name", "port"))
        name, port = config.get("name"), config.get("port")
        if type(port) is not int or not 0 < port < 65536:
            options.error("port", f"must be a number from 1 to 65535, not {describe(port)}")
            port = 1
        if not isinstance(name, str):
            options.error("name", f"must be a host name, not {describe(name)}")
            name = "localhost"
        server = ""
        try:
            server = parse_server(join_host_port(name, port)).name
        except ValueError as error:
            options.error("name", str(error))
        options.raise_errors()
        return _DnsLister(server)
