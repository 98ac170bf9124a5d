"""The names that other parts of a configuration may refer to."""

from __future__ import annotations

__all__ = ["Names"]

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Final

from reverseproxy.config._checker import CLUSTERS, LISTENERS, ROUTERS
from reverseproxy.config._clusters import ClusterConfig
from reverseproxy.config._nodes import Location
from reverseproxy.config._proxies import ProxyConfig
from reverseproxy.config._routers import RouterConfig
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import quote
from reverseproxy.config.models import Config

_MAX_LISTED: Final = 20
"""The most names in a message."""
_MAX_COMPARED: Final = 200_000
"""The most comparisons of names, at a few microseconds each, to guess which one was meant."""


class Names:
    """
    The names of clusters, listeners and routers.

    @ivar clusters: the names of clusters.
    @ivar clusters_known: whether none was left out because of an error.
    @ivar listeners: the names of listeners.
    @ivar listeners_known: likewise.
    @ivar routers: the names of routers.
    @ivar routers_known: likewise.
    @ivar by_name: the clusters of each name.
    @ivar spoken: the protocols of the listeners that use each router.
    """

    def __init__(self, config: Config, tree: Tree) -> None:
        self._config = config
        self.clusters = {cluster.name for cluster in config.cluster_manager.clusters}
        self.clusters_known = tree.complete(CLUSTERS, "name")
        listeners = config.servers[0].listeners if config.servers else ()
        self.listeners = {listener.name for listener in listeners}
        self.listeners_known = tree.complete(LISTENERS, "address", "name")
        self.routers = {router.router_config_name for _, router in self.all_routers()}
        self.routers_known = tree.complete(ROUTERS, "router_config_name", named=False)
        self._sorted: dict[str, list[str]] = {}  # the sorted names, by kind
        self._hints: dict[tuple[str, str], str] = {}
        self.by_name: dict[str, list[ClusterConfig]] = {}
        for cluster in config.cluster_manager.clusters:
            self.by_name.setdefault(cluster.name, []).append(cluster)
        self.spoken: dict[str, set[str]] = {}
        for listener in listeners:
            for chain in listener.filter_chains:
                for entry in chain.filters:
                    if isinstance(entry.config, ProxyConfig):
                        name = entry.config.router_config_name
                        self.spoken.setdefault(name, set()).update(entry.config.protocols)

    def unknown(self, what: str, name: str, known: Iterable[str]) -> str:
        """Return the message for an undefined name, with the defined ones."""
        if (what, name) not in self._hints:
            self._hints[what, name] = self._hint(what, name, known)
        return f"there is no {what} {quote(name)}; {self._hints[what, name]}"

    def _hint(self, what: str, name: str, known: Iterable[str]) -> str:
        """Return which name was probably meant."""
        if what not in self._sorted:
            self._sorted[what] = sorted(entry for entry in known if entry)
        names = self._sorted[what]
        if not names:
            return f"no {what} is defined"
        # Comparisons are slow, and there may be many unknown names.
        if len(names) * len(self._hints) <= _MAX_COMPARED:
            near = get_close_matches(name, names, n=1)
            if near:
                return f"did you mean {quote(near[0])}?"
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        return f"defined: {', '.join(map(quote, names[:_MAX_LISTED]))}{more}"

    def all_routers(self) -> Iterator[tuple[Location, RouterConfig]]:
        """Yield all routers with their places: the server's, and those of connection_manager filters."""
        for server in self._config.servers[:1]:
            for index, router in enumerate(server.routers):
                yield (*ROUTERS, index), router
            for i, listener in enumerate(server.listeners):
                for j, chain in enumerate(listener.filter_chains):
                    for k, entry in enumerate(chain.filters):
                        if isinstance(entry.config, RouterConfig):
                            yield (*LISTENERS, i, "filter_chains", j, "filters", k, "config"), entry.config
