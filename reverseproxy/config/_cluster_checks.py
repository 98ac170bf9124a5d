"""Checks of clusters that concern several keys."""

from __future__ import annotations

__all__ = ["ClusterChecker"]

from typing import Final

from reverseproxy.config._checker import CLUSTERS
from reverseproxy.config._clusters import DNS_KEYS, ClusterConfig
from reverseproxy.config._nodes import Location
from reverseproxy.config._tls_checks import NamingChecker
from reverseproxy.config._values import quote

_WITH_WEIGHTS: Final = ("LB_WEIGHTED_ROUNDROBIN", "LB_LEAST_REQUEST", "LB_LEAST_CONNECTION", "LB_PEAK_EWMA")


class ClusterChecker(NamingChecker):
    """Checks clusters."""

    def run(self) -> None:
        """Check all clusters."""
        manager = self._config.cluster_manager
        clusters = manager.clusters
        self._unique("cluster", (((*CLUSTERS, i, "name"), entry.name) for i, entry in enumerate(clusters)))
        if manager.tls_context is not None:
            self._tls_checks.client(("cluster_manager", "tls_context"), manager.tls_context)
            if not any(each.cluster_manager_tls for each in clusters) and self._names.clusters_known:
                place = ("cluster_manager", "tls_context")
                self._warn(place, "has no effect: no cluster has cluster_manager_tls")
        for index, cluster in enumerate(clusters):
            self._cluster((*CLUSTERS, index), cluster)

    def _cluster(self, location: Location, cluster: ClusterConfig) -> None:
        own = (*location, "tls_context")
        if not cluster.cluster_manager_tls:
            if cluster.tls_context is not None:
                self._tls_checks.client(own, cluster.tls_context)
        else:
            if self._tree.get(own):
                self._warn(own, "does not count, because cluster_manager_tls is true")
            if cluster.tls_context is None:
                self._warn(
                    (*location, "cluster_manager_tls"),
                    "is true, but cluster_manager.tls_context is not on: hosts are dialled in plaintext",
                )
        http = cluster.health_check.check_config.http_check_config
        for index, codes in enumerate(() if http is None else http.codes):
            if codes.start > codes.end:
                place = (*location, "health_check", "check_config", "http_check_config", "codes", index)
                self._error(place, f"{codes.start} is above {codes.end}: no status is from one to the other")
        if len(cluster.circuit_breakers) > 1:
            self._warn((*location, "circuit_breakers"), "only the first element counts")
        self._without_effect(location, cluster)
        seen: set[str] = set()
        for index, host in enumerate(cluster.hosts):
            if host.address and host.address in seen:
                self._warn(
                    (*location, "hosts", index, "address"),
                    f"{quote(host.address)} occurs more than once in this cluster; the last one counts",
                )
            seen.add(host.address)

    def _without_hosts(self, location: Location, cluster: ClusterConfig) -> None:
        """Warn of keys that have no effect without hosts."""
        if cluster.hosts or self._tree.has_lost(location, "hosts"):
            return
        if cluster.proxy_protocol:
            self._warn(
                (*location, "proxy_protocol"), "has no effect: no hosts are given here, and agents' get none"
            )
        if cluster.tls_context is not None and not cluster.cluster_manager_tls:
            self._warn(
                (*location, "tls_context"),
                "has no effect: no hosts are given here, and agents' connections have their listener's TLS",
            )

    def _without_effect(self, location: Location, cluster: ClusterConfig) -> None:
        """Warn of keys that have no effect without others."""
        self._without_hosts(location, cluster)
        if self._tree.get((*location, "health_check")) and not cluster.health_check.enabled:
            self._warn(
                (*location, "health_check", "service_name"),
                "is empty: there are no health checks, as in MOSN",
            )
        start = cluster.slow_start
        if start.mode == "duration" and not start.slow_start_duration:
            self._warn(
                (*location, "slow_start", "slow_start_duration"), "is not above 0: there is no slow start"
            )
        elif start.enabled and cluster.lb_type not in _WITH_WEIGHTS:
            self._warn(
                (*location, "slow_start"), f"has no effect, because {cluster.lb_type} does not know weights"
            )
        subsets = cluster.lb_subset_config
        if self._tree.get((*location, "lb_subset_config")) and not subsets.subset_selectors:
            self._warn(
                (*location, "lb_subset_config", "subset_selectors"), "there is none: there are no subsets"
            )
        elif subsets.default_subset and subsets.fall_back_policy != 2:
            self._warn(
                (*location, "lb_subset_config", "default_subset"),
                "has no effect, because fall_back_policy is not 2",
            )
        if cluster.type != "STRICT_DNS":
            for field in DNS_KEYS:
                if self._tree.get((*location, field)):
                    self._warn((*location, field), "has no effect, because type is not STRICT_DNS")
