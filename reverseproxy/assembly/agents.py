"""Build the tunnel agents of a configuration."""

from __future__ import annotations

__all__ = ["AgentBuilder"]

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from reverseproxy.addresses import host_of
from reverseproxy.assembly.surroundings import AgentParts, Surroundings
from reverseproxy.assembly.world import World, tell_of_expiry
from reverseproxy.cluster.health.reachability import Reach
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import TunnelAgentConfig
from reverseproxy.errors import CredentialMissing
from reverseproxy.interfaces import ICredentialCheck, ICredentialSource
from reverseproxy.problems import DOCUMENT, Place
from reverseproxy.tls import ClientTls
from reverseproxy.tunnel.agent.agent import Agent
from reverseproxy.tunnel.agent.discovery import Discovery, Target
from reverseproxy.tunnel.agent.plan import ADAPTABLE, AgentPlan, new_agent_id
from reverseproxy.tunnel.agent.service import HostedService
from reverseproxy.tunnel.plugins import BuiltInLister, add_lister, find_credential_source, find_lister
from reverseproxy.wire.mosn.extensions import Announcement

add_lister(BuiltInLister("etcd", "reverseproxy.assembly.etcd_lister", "EtcdListerPlugin"))

_AGENTS: Final = DOCUMENT / "extends"


class AgentBuilder:
    """Builds the agents of one configuration."""

    def __init__(self, world: World, findings: Diagnostics, around: Surroundings) -> None:
        self._world = world
        self._findings = findings
        self._around = around

    def build(self, index: int, config: TunnelAgentConfig) -> AgentParts:
        """
        Build an agent.

        @param index: its index among C{extends}.
        """
        world, findings = self._world, self._findings
        path = _AGENTS / index / "config"
        credentials = None
        if config.credential_policy:
            credentials = findings.attempt(
                path / "credential_config",
                partial(find_credential_source, config.credential_policy, config.credential_config),
                path / "credential_policy",
            )
            self._look_for_credential(credentials, path / "credential_config")
        agent_id = new_agent_id()
        # Check the limits of the announcement now, rather than at each connect.
        findings.attempt(path / "metadata", partial(Announcement, agent_id, metadata=config.metadata))
        contexts: dict[str, ClientTls] = {}

        def client_tls(server: str) -> ClientTls:
            assert config.tls_context is not None
            name = host_of(server)
            if name not in contexts:
                # The servers share one context: the system's authorities take a megabyte each time.
                one = next(iter(contexts.values()), None)
                if one is not None:
                    contexts[name] = one.named(name)
                else:
                    contexts[name] = ClientTls(config.tls_context, name, path / "tls_context")
                    tell_of_expiry(findings, contexts[name])
            return contexts[name]

        if config.tls_context is not None:
            # The servers of a lister are not known yet, but the files are.
            for server in config.server_list or ("localhost:0",):
                findings.attempt(path / "tls_context", partial(client_tls, server))
        raw = self._around.relays(config.hosting_listener)
        speaks = self._around.speaks(config.hosting_listener)
        plan = AgentPlan(
            config=config,
            sink=self._around.listeners[config.hosting_listener],
            reactor=world.reactor,
            random=world.random,
            credentials=credentials,
            client_tls=client_tls if config.tls_context is not None else None,
            agent_id=agent_id,
            service=HostedService(config.hosting_listener) if config.announce else None,
            raw=raw,
            speaks=speaks,
            seed=f"{world.seed} {config.cluster}",
        )
        agent = Agent(plan, self._discover(config, path))
        return AgentParts(config, agent, tuple(contexts.values())[:1], raw, speaks)

    def _discover(
        self, config: TunnelAgentConfig, path: Place
    ) -> Callable[[Callable[[Sequence[Target]], None]], Discovery]:
        """Return a function that starts the discovery of an agent's servers, given the callback for them."""
        reactor, random = self._world.reactor, self._world.random
        dynamic = config.dynamic_server_list_config
        lister = None
        if dynamic.dynamic_server_lister:
            find = partial(
                find_lister, dynamic.dynamic_server_lister, config.cluster, dynamic.config, reactor
            )
            place = path / "dynamic_server_list_config"
            named = place / "dynamic_server_lister"
            lister = self._findings.attempt(place / "config", find, named)

        def discover(update: Callable[[Sequence[Target]], None]) -> Discovery:
            return Discovery(
                config.server_list,
                update,
                reactor,
                reactor,
                lister=lister,
                refresh=config.dns_refresh_duration,
                random=random.random,
                cluster=config.cluster,
            )

        return discover

    def adapt(self, index: int, config: TunnelAgentConfig, old: AgentParts) -> AgentParts | None:
        """
        Prepare to change the settings of a running agent, if its connections can stay.

        @param index: its index among C{extends}.
        @return: the agent with its new configuration, for L{Agent.adapt}; L{None} if it has to
            be replaced.
        """
        if config.model_copy(update={name: getattr(old.config, name) for name in ADAPTABLE}) != old.config:
            return None
        client_tls = old.agent.plan.client_tls
        if client_tls is not None:
            for server in config.server_list:
                self._findings.attempt(
                    _AGENTS / index / "config" / "tls_context", partial(client_tls, server)
                )
        return replace(old, config=config)

    def follow(self, parts: Sequence[AgentParts]) -> None:
        """Have agents report whether the clusters behind their listeners can be reached."""
        around = self._around
        wanted: dict[str, list[float]] = {}
        for each in parts:
            if each.agent.plan.service is not None:
                for name in around.clusters_of(each.config.hosting_listener):
                    wanted.setdefault(name, []).append(each.config.service_check_interval)
        for name in [name for name in around.reaches if name not in wanted]:
            around.reaches.pop(name).end()
        for name, intervals in wanted.items():
            cluster = around.clusters[name]
            reach = around.reaches.get(name)
            if reach is None:
                reach = around.reaches[name] = Reach(cluster, self._world.reactor, 0.0)
                cluster.add_task(reach)
            reach.set_intervals(intervals)
        for each in parts:
            service = each.agent.plan.service
            if isinstance(service, HostedService):
                names = around.clusters_of(each.config.hosting_listener)
                service.follow([around.reaches[name] for name in names])

    def _look_for_credential(self, source: ICredentialSource | None, path: Place) -> None:
        """Report a missing credential; it may be added later, as it is read again for each connect."""
        check = None if source is None else ICredentialCheck(source, None)
        if check is not None:
            try:
                check.check()
            except CredentialMissing as error:
                self._findings.miss(path, str(error))
