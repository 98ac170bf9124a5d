"""
Documents that can be parsed, but are invalid.

Their valid parts can still be built, to find everything that is wrong.
"""

from __future__ import annotations

__all__ = ["InvalidDocument"]

from collections.abc import Iterable
from typing import Any, Final

from reverseproxy.config._agents import TunnelAgentConfig
from reverseproxy.config._clusters import ClusterConfig
from reverseproxy.config._listeners import FilterChainConfig, FilterConfig, ListenerConfig
from reverseproxy.config._proxies import ProxyConfig
from reverseproxy.config._tree import Tree
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config, ServerConfig
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place, Problem

_NOWHERE: Final = "127.0.0.1:1"
"""The address of a host whose own is wrong."""

_STAND_IN: Final = "\0"
"""The name of a listener for agents whose own there is not."""


class InvalidDocument(ConfigError):
    """
    A document is invalid.

    @ivar usable: its parts that can be built.
    @ivar file: its name.
    """

    def __init__(self, config: Config, tree: Tree, findings: Diagnostics) -> None:
        """
        @param config: the models, without the values that are wrong.
        @param findings: has the errors.
        """
        super().__init__(*findings.errors, warnings=findings.warnings)
        self._tree = tree
        self._findings = findings
        self.usable = _usable(config, tree)
        self.file = tree.root.place.file or ""

    def joined(self, errors: Iterable[Problem], warnings: Iterable[Problem] = ()) -> ConfigError:
        """
        Return an error with further problems, in the order of the document.

        @param errors: what is wrong with L{usable}; of values that are known to be wrong, nothing is added.
        @param warnings: further warnings.
        """
        findings = self._findings
        for problem in errors:
            found = self._placed(problem)
            if not self._follows(problem, found):
                findings.add(found)
        for problem in warnings:
            findings.add_warning(self._placed(problem))
        return ConfigError(*findings.errors, warnings=findings.warnings)

    def _follows(self, problem: Problem, found: Problem) -> bool:
        """Return whether a problem of the models follows from what is known to be wrong."""
        keys = problem.place.keys
        if self._findings.is_wrong(found.place) or self._tree.has_lost(keys):
            return True
        around = Place(found.place.file, found.place.keys[:-1])
        return self._findings.is_wrong(around) and self._tree.get(keys) is None

    def _placed(self, problem: Problem) -> Problem:
        """Return a problem where the document has it, which the models may have elsewhere."""
        place, document = problem.place, self._tree.root.place
        if place.file not in (None, "", document.file):
            return problem  # in a file that the document names
        return Problem.at(self._tree.locate(place.keys) if place.keys else document, problem.reason)


def _usable(config: Config, tree: Tree) -> Config:
    """Return a configuration that can be built, with all that is valid in another one."""
    server = config.servers[0] if config.servers else ServerConfig()
    listeners = [_usable_listener(index, each, tree) for index, each in enumerate(server.listeners)]
    names = [each.name for each in listeners]
    chain = (FilterChainConfig(),)
    # Behind the others, so that these stay where they are.
    listeners.append(ListenerConfig(name=_STAND_IN, address="", filter_chains=chain))
    extends = []
    for extension in config.extends:
        agent = extension.config
        if isinstance(agent, TunnelAgentConfig) and names.count(agent.hosting_listener) != 1:
            agent = agent.model_copy(update={"hosting_listener": _STAND_IN})
            extension = extension.model_copy(update={"config": agent})
        extends.append(extension)
    manager = config.cluster_manager
    clusters = tuple(_usable_cluster(each) for each in manager.clusters)
    fleet = config.fleet
    if fleet is not None and not (
        fleet.server_id and fleet.peers and fleet.peers.address and fleet.etcd and fleet.etcd.endpoints
    ):
        fleet = None
    server = server.model_copy(update={"listeners": tuple(listeners)})
    return config.model_copy(
        update={
            "servers": (server,),
            "extends": tuple(extends),
            "fleet": fleet,
            "cluster_manager": manager.model_copy(update={"clusters": clusters}),
        }
    )


def _usable_cluster(cluster: ClusterConfig) -> ClusterConfig:
    """Return a cluster whose hosts have addresses."""
    hosts = [
        each if each.address else each.model_copy(update={"address": _NOWHERE}) for each in cluster.hosts
    ]
    return cluster.model_copy(update={"hosts": tuple(hosts)})


def _usable_listener(index: int, listener: ListenerConfig, tree: Tree) -> ListenerConfig:
    """Return a listener with a filter chain, whose filters need nothing that is wrong."""
    place = ("servers", 0, "listeners", index, "filter_chains", 0, "filters")
    chains = listener.filter_chains or (FilterChainConfig(),)
    filters = [_usable_filter(each, tree, (*place, number)) for number, each in enumerate(chains[0].filters)]
    first = chains[0].model_copy(update={"filters": tuple(filters)})
    return listener.model_copy(update={"filter_chains": (first, *chains[1:])})


def _usable_filter(entry: FilterConfig, tree: Tree, location: tuple[str | int, ...]) -> FilterConfig:
    config = entry.config
    changes: dict[str, Any] = {}
    if isinstance(config, ProxyConfig) and not config.protocols:
        changes = {"downstream_protocol": "Http1"}
    elif isinstance(config, TunnelConfig) and tree.has_lost((*location, "config"), "validators"):
        changes = {"credential_policy": "", "cluster_credential_policies": {}}
    return (
        entry.model_copy(update={"config": config.model_copy(update=changes)})
        if config and changes
        else entry
    )
