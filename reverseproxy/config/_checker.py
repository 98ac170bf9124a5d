"""The base class of checks that concern several keys."""

from __future__ import annotations

__all__ = ["CLUSTERS", "LISTENERS", "PROTOCOLS", "ROUTERS", "SAMPLE", "SAMPLE_POLICY", "Checker"]

from collections.abc import Iterable, Iterator
from typing import Final

from reverseproxy.config._agents import TunnelAgentConfig
from reverseproxy.config._nodes import Location, Node
from reverseproxy.config._tree import Tree
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config._values import quote
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config

PROTOCOLS: Final = ("Http1", "Http2", "bolt", "boltv2", "dubbo", "Auto")
"""The built-in protocols; plug-ins may add others."""

_SERVER: Final[Location] = ("servers", 0)
CLUSTERS: Final[Location] = ("cluster_manager", "clusters")
LISTENERS: Final[Location] = (*_SERVER, "listeners")
ROUTERS: Final[Location] = (*_SERVER, "routers")

SAMPLE_POLICY: Final = "test"
SAMPLE: Final = "is what MOSN's sample has, for trying things out"

_STREAMS: Final = ("mux", "mux_ping_interval", "mux_ping_timeout", "mux_max_window", "mux_max_window_growth")
"""The keys for connections with multiplexed streams."""


class Checker:
    """The base class of checks: the models, the document, and the diagnostics."""

    def __init__(self, config: Config, tree: Tree, findings: Diagnostics) -> None:
        """
        @param config: the models, without the values that are wrong by themselves.
        @param tree: the document.
        @param findings: gets errors and warnings.
        """
        self._config = config
        self._tree = tree
        self._findings = findings

    def _error(self, location: Location, message: str) -> None:
        self._findings.error(self._tree.locate(location), message)

    def _warn(self, location: Location, message: str) -> None:
        """Add a warning, unless there is an error at its place, which would make it misleading."""
        place = self._tree.locate(location)
        if not self._findings.is_wrong(place):
            self._findings.warn(place, message)

    def _shown(self, location: Location) -> str:
        """Return a place for messages about another one, with its file if that is not the main one."""
        place = self._tree.locate(location)
        return place.path if place.file == self._tree.root.place.file else f"{place.file}: {place.path}"

    def _given(self, location: Location) -> bool:
        """Return whether the document has a value there, even a wrong one."""
        parent, last = self._tree.get(location[:-1]), location[-1]
        return isinstance(parent, Node) and (last in parent or last in parent.lost)

    def _lost(self, location: Location) -> bool:
        """Return whether the document has a wrong value there, which was removed."""
        parent, last = self._tree.get(location[:-1]), location[-1]
        return isinstance(parent, Node) and last in parent.lost

    def _exactly_one(self, location: Location, count: int, what: str) -> None:
        if not count and self._given(location) and not self._tree.get(location):
            self._error(location, f"is empty; write exactly one {what}")
        elif not count:
            self._error(location, f"missing key: write exactly one {what}")
        elif count > 1:
            self._error(location, f"{count} {what}s; write exactly one")

    def _unique(self, what: str, names: Iterable[tuple[Location, str]]) -> None:
        """Require names to be unique."""
        first: dict[str, str] = {}
        for location, name in names:
            if not name:
                continue
            if name in first:
                self._error(location, f"there is already a {what} {quote(name)} at {first[name]}")
            else:
                first[name] = self._shown(location)

    def _streams(self, location: Location, config: TunnelConfig | TunnelAgentConfig, why: str) -> None:
        """
        Warn of keys for multiplexed streams that have no effect.

        @param why: why there are no such streams; empty if there may be some.
        """
        for name in _STREAMS if why else ():
            if self._given((*location, name)) and getattr(config, name):
                self._warn((*location, name), f"has no effect, because {why}")

    def _nodes(self, here: object) -> Iterator[Node]:
        if isinstance(here, Node):
            yield here
            for child in here.values():
                yield from self._nodes(child)
        elif isinstance(here, list):
            for child in here:
                yield from self._nodes(child)
