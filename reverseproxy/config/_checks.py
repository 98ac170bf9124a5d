"""
Checks of a whole configuration, which concern several keys.

Every check runs, whatever the others have found; single values have been validated
by the models before.
"""

from __future__ import annotations

__all__ = ["check"]

from typing import Final

from reverseproxy.config._admin_checks import check_admin
from reverseproxy.config._agent_checks import AgentChecker
from reverseproxy.config._checker import Checker
from reverseproxy.config._cluster_checks import ClusterChecker
from reverseproxy.config._filter_checks import check_filters
from reverseproxy.config._fleet import check_fleet
from reverseproxy.config._listener_checks import ListenerChecker
from reverseproxy.config._named import Names
from reverseproxy.config._open_checks import check_openness
from reverseproxy.config._route_checks import check_agent_routes
from reverseproxy.config._router_checks import RouterChecker
from reverseproxy.config._tls_checks import TlsChecker
from reverseproxy.config._tracing import check_tracing
from reverseproxy.config._tree import Tree
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config

_XDS: Final = ("dynamic_resources", "static_resources")


def check(config: Config, tree: Tree, findings: Diagnostics) -> None:
    """
    Check a whole configuration.

    @param config: the models, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets errors and warnings.
    """
    _DocumentChecker(config, tree, findings).run()


class _DocumentChecker(Checker):
    """Runs all checks, one after the other."""

    def run(self) -> None:
        """Run all checks."""
        config, tree, findings = self._config, self._tree, self._findings
        names, tls = Names(config, tree), TlsChecker(config, tree, findings)
        if not self._is_xds():
            self._exactly_one(("servers",), len(config.servers), "server")
        RouterChecker(config, tree, findings, names).run()
        if config.servers:
            ListenerChecker(config, tree, findings, names, tls).run()
            check_filters(config, tree, findings)
            check_agent_routes(config, tree, findings, names.routers)
        ClusterChecker(config, tree, findings, names, tls).run()
        AgentChecker(config, tree, findings, names, tls).run()
        check_admin(config.admin, tree, findings)
        listening = {each.name for server in config.servers for each in server.listeners}
        check_fleet(config.fleet, tree, findings, listening)
        check_tracing(config.tracing, tree, findings)
        if config.admin is not None and config.admin.tls_context is not None:
            tls.server(("admin", "tls_context"), config.admin.tls_context)
        fleet = config.fleet
        for name, part in () if fleet is None else (("etcd", fleet.etcd), ("peers", fleet.peers)):
            if part is not None and part.tls_context is not None:
                tls.client(("fleet", name, "tls_context"), part.tls_context)
        tls.without_status()
        check_openness(config, tree, findings)

    def _is_xds(self) -> bool:
        """
        Refuse a configuration for xDS, which only names a server to get the real one from.

        @return: whether it is one.
        """
        given = [name for name in _XDS if self._tree.get((name,))]
        if not given or self._given(("servers",)):
            return False
        self._error(
            (given[0],),
            "this is a configuration for xDS, which is not supported: listeners and clusters can't be had "
            "from an xDS server, nor be written as Envoy does; write servers and cluster_manager instead",
        )
        return True
