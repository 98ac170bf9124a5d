"""Checks of tunnel agents that concern several keys."""

from __future__ import annotations

__all__ = ["AgentChecker"]

from reverseproxy.addresses import host_of, is_ip
from reverseproxy.config._agents import TunnelAgentConfig
from reverseproxy.config._checker import SAMPLE, SAMPLE_POLICY
from reverseproxy.config._nodes import Location, purpose
from reverseproxy.config._tls_checks import NamingChecker
from reverseproxy.config._values import quote


class AgentChecker(NamingChecker):
    """Checks tunnel agents."""

    def run(self) -> None:
        """Check all agents."""
        for index, extension in enumerate(self._config.extends):
            if extension.config is not None and not self._tree.has_lost(("extends", index), "config"):
                self._agent(("extends", index, "config"), extension.config)

    def _agent(self, location: Location, agent: TunnelAgentConfig) -> None:
        if not agent.enable:
            if not self._given((*location, "enable")):
                self._warn((*location, "enable"), "missing key: without it this agent does nothing")
            return
        self._names_of(location, agent)
        self._servers(location, agent)
        self._credentials(location, agent)
        if agent.routes.asks and not agent.announce:
            self._warn((*location, "routes"), "has no effect, because announce is false")
        if agent.tls_context is not None:
            self._tls_checks.client((*location, "tls_context"), agent.tls_context)
        no_streams = "" if agent.mux else "mux is false"
        self._streams(location, agent, no_streams if agent.announce else "announce is false")

    def _names_of(self, location: Location, agent: TunnelAgentConfig) -> None:
        """Check the names of its cluster and its listener."""
        for field in ("cluster", "hosting_listener"):
            if not getattr(agent, field):
                self._error((*location, field), f"missing key: {purpose(TunnelAgentConfig, field)}")
        if (
            agent.hosting_listener
            and agent.hosting_listener not in self._names.listeners
            and self._names.listeners_known
        ):
            self._error(
                (*location, "hosting_listener"),
                self._names.unknown("listener", agent.hosting_listener, self._names.listeners),
            )

    def _servers(self, location: Location, agent: TunnelAgentConfig) -> None:
        """Check its servers, and the number of connections."""
        if not agent.connection_num:
            self._warn((*location, "connection_num"), "is 0: this agent holds no connections")
        lister = agent.dynamic_server_list_config.dynamic_server_lister
        if not (agent.server_list or lister or self._lost_servers(location)):
            self._warn((*location, "server_list"), "there is none: this agent has nothing to connect to")
        seen: set[str] = set()
        for index, server in enumerate(agent.server_list):
            if server in seen:
                self._warn((*location, "server_list", index), f"{quote(server)} is listed more than once")
            seen.add(server)
        hosts = [host_of(each) for each in agent.server_list]
        if not lister and all(map(is_ip, hosts)) and 0 < len(set(agent.server_list)) <= agent.server_count:
            self._warn((*location, "server_count"), "has no effect: there are no more servers in server_list")
        if (
            self._given((*location, "reconnect_max_duration"))
            and agent.reconnect_max_duration < agent.reconnect_base_duration
        ):
            self._error((*location, "reconnect_max_duration"), "is shorter than reconnect_base_duration")

    def _lost_servers(self, location: Location) -> bool:
        """Return whether the document names servers, or a lister, that were removed, as they are wrong."""
        names = ("server_list", "dynamic_server_list_config")
        return any(self._tree.has_lost(location, name) for name in names)

    def _credentials(self, location: Location, agent: TunnelAgentConfig) -> None:
        """Check its credentials."""
        if agent.credential_policy == SAMPLE_POLICY:
            self._warn((*location, "credential_policy"), f"{SAMPLE}: its credential is known to everybody")
        elif agent.credential_policy and agent.tls_context is None:
            self._warn(
                (*location, "credential_policy"), "the credential is sent in the clear, because TLS is off"
            )
        if agent.credential_config and not agent.credential_policy:
            self._warn(
                (*location, "credential_config"),
                'has no effect without credential_policy, such as "static": no credential is sent',
            )
