"""
Warn of what a configuration leaves accessible, perhaps by mistake.

Each warning names the key that restricts access.
"""

from __future__ import annotations

__all__ = ["check_openness"]

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final

from reverseproxy.addresses import is_loopback
from reverseproxy.config._admin import AdminConfig
from reverseproxy.config._agents import TunnelAgentConfig
from reverseproxy.config._checker import Checker
from reverseproxy.config._etcd import EtcdConfig
from reverseproxy.config._filters import IpAccessConfig
from reverseproxy.config._listeners import FilterChainConfig, ListenerConfig
from reverseproxy.config._nodes import Location, Node
from reverseproxy.config._proxies import ProxyConfig
from reverseproxy.config._tls import TlsContextConfig
from reverseproxy.config._tree import Tree
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config._values import quote, split_address
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config
from reverseproxy.config.networks import EVERYBODY, networks_of
from reverseproxy.problems import Place

_LISTENERS: Final[Location] = ("servers", 0, "listeners")
_PEM: Final = "-----BEGIN"
_FOREIGN_ACCESS: Final = stat.S_IRWXG | stat.S_IRWXO
_LONGEST_PATH: Final = 4096  # file names are not shortened (PATH_MAX of Linux)
_EXECUTE: Final = stat.S_IXGRP | stat.S_IXOTH


def check_openness(config: Config, tree: Tree, findings: Diagnostics) -> None:
    """
    Check what strangers can reach.

    @param config: the models, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets warnings.
    """
    _ExposureChecker(config, tree, findings).run()


def _is_claim(header: str) -> bool:
    """Return whether a header, in lower case, names the client's address."""
    return header.startswith("x-forwarded") or header in ("x-real-ip", "forwarded")


def _is_far(address: str) -> bool:
    """Return whether an address is not a loopback one."""
    try:
        host, _ = split_address(address)
    except ValueError:
        return False
    return not is_loopback(host)  # a name may be of any machine, and an empty host means all addresses


def _demands_certificates(contexts: tuple[TlsContextConfig, ...]) -> bool:
    """Return whether all contexts demand a verified client certificate."""
    return bool(contexts) and all(
        context.verify_client and context.require_client_cert and not context.fall_back
        for context in contexts
    )


def _has_secret(value: object) -> bool:
    """Return whether options of a policy have a secret, rather than name a file or variable with it."""
    if isinstance(value, Mapping):
        return any(name in ("token", "tokens") or _has_secret(entry) for name, entry in value.items())
    return False


class _ExposureChecker(Checker):
    def run(self) -> None:
        listeners = self._config.servers[0].listeners if self._config.servers else ()
        for index, listener in enumerate(listeners):
            for number, chain in enumerate(listener.filter_chains):
                place = (*_LISTENERS, index)
                self._chain(place, (*place, "filter_chains", number), listener, chain)
            self._claimed_addresses((*_LISTENERS, index), listener)
        for index, extension in enumerate(self._config.extends):
            if isinstance(extension.config, TunnelAgentConfig) and extension.config.enable:
                self._agent(("extends", index, "config"), extension.config)
        self._files()

    # listeners

    def _chain(
        self, place: Location, location: Location, listener: ListenerConfig, chain: FilterChainConfig
    ) -> None:
        contexts = chain.tls_contexts
        for name, context in self._contexts(location, chain):
            if context.require_client_cert and not context.verify_client:
                self._warn(
                    (*name, "require_client_cert"),
                    "clients get in with any certificate, and without one: set verify_client as well",
                )
            elif context.verify_client and not context.require_client_cert:
                self._warn(
                    (*name, "verify_client"),
                    "clients that send no certificate get in as well: set require_client_cert",
                )
            elif context.verify_client and context.fall_back:
                self._warn(
                    (*name, "fall_back"),
                    "should our certificate be missing or bad, everybody gets in without one of theirs",
                )
        tunnels = [entry.config for entry in chain.filters if isinstance(entry.config, TunnelConfig)]
        far = listener.bind_port and listener.network == "tcp" and _is_far(listener.address)
        if listener.inspector and any(context.verify_client for context in contexts):
            self._warn(
                (*place, "inspector"),
                "plaintext is taken as well, and everybody gets in so without a certificate: set it to false",
            )
        elif listener.inspector and contexts and tunnels and far:
            self._warn(
                (*place, "inspector"),
                "agents may come without TLS, with their credentials in the clear: set it to false",
            )
        for number, entry in enumerate(chain.filters):
            if isinstance(entry.config, TunnelConfig) and far:
                self._tunnel((*location, "filters", number), listener, contexts, entry.config)
            elif isinstance(entry.config, ProxyConfig) and far:
                self._proxy((*location, "filters", number, "config"), entry.config)

    def _claimed_addresses(self, place: Location, listener: ListenerConfig) -> None:
        """Warn of a filter by client address that uses a header which no proxy is trusted to set."""
        proxies = [
            entry.config
            for chain in listener.filter_chains
            for entry in chain.filters
            if isinstance(entry.config, ProxyConfig)
        ]
        if not (listener.bind_port and listener.network == "tcp") or not proxies:
            return
        if any(proxy.trusted_proxies for proxy in proxies):
            return
        for index, each in enumerate(listener.stream_filters):
            header = each.config.header if isinstance(each.config, IpAccessConfig) else ""
            if header and _is_claim(header):
                self._warn(
                    (*place, "stream_filters", index, "config", "header"),
                    f"no client is believed what it says in {header}: the lists are compared with the "
                    "addresses that connections come from; set trusted_proxies of the proxy filter",
                )

    def _contexts(
        self, location: Location, chain: FilterChainConfig
    ) -> Iterator[tuple[Location, TlsContextConfig]]:
        """Yield the enabled TLS contexts with their places."""
        if chain.tls_context is not None and chain.tls_context.status:
            yield (*location, "tls_context"), chain.tls_context
        for index, context in enumerate(chain.tls_context_set):
            if context.status:
                yield (*location, "tls_context_set", index), context

    def _tunnel(
        self,
        location: Location,
        listener: ListenerConfig,
        contexts: tuple[TlsContextConfig, ...],
        tunnel: TunnelConfig,
    ) -> None:
        """Warn of what strangers can do at a tunnel listener that other machines can reach."""
        open_to: list[str] = []
        policies = tunnel.cluster_credential_policies
        names = [cluster.name for cluster in self._config.cluster_manager.clusters]
        unguarded = [name for name in names if not policies.get(name, tunnel.credential_policy)]
        if not (_demands_certificates(contexts) and not listener.inspector) and unguarded:
            where = "any cluster" if len(unguarded) == len(names) else f"cluster {quote(unguarded[0])}"
            more = f" and {len(unguarded) - 1} more" if where != "any cluster" and len(unguarded) > 1 else ""
            open_to.append(
                f"any agent that can connect to {listener.address} can join {where}{more} and get its "
                "requests: set credential_policy, or verify_client and require_client_cert"
            )
        if not contexts:
            open_to.append("without TLS, the traffic can be read and changed on its way: set tls_context")
        if open_to:
            self._warn(location, "; ".join(open_to))

    def _proxy(self, location: Location, proxy: ProxyConfig) -> None:
        ranges = [text for text in proxy.trusted_proxies if text != EVERYBODY]
        everybody = EVERYBODY in proxy.trusted_proxies or any(
            network.prefixlen == 0 for network in networks_of(ranges)
        )
        if everybody:
            self._warn(
                (*location, "trusted_proxies"),
                "every client is trusted with header fields about its address and its timeouts: "
                "list only the proxies in front",
            )

    # agents

    def _agent(self, location: Location, agent: TunnelAgentConfig) -> None:
        far = [server for server in agent.server_list if _is_far(server)]
        if agent.tls_context is None and (far or agent.dynamic_server_list_config.dynamic_server_lister):
            self._warn(
                location,
                f"there is no TLS to {far[0] if far else 'the servers that are listed'}: the traffic can be "
                "read and changed on its way; set tls_context",
            )

    # files

    def _files(self) -> None:
        """Warn of files with secrets that other users of this machine may read."""
        for node in self._nodes(self._tree.root):
            if node.model is TlsContextConfig and node.get("status") is True:
                self._secret(node, node.place / "private_key", node.get("private_key"), "private key")
            elif node.model is TunnelConfig:
                validators = node.get("validators")
                for policy, options in validators.items() if isinstance(validators, Mapping) else ():
                    self._options(node, node.place / "validators" / policy, options)
            elif node.model is AdminConfig:
                self._secret(node, node.place / "tokens_file", node.get("tokens_file"), "tokens")
            elif node.model is EtcdConfig:
                self._secret(
                    node, node.place / "password_file", node.get("password_file"), "the password of etcd"
                )
            elif node.model is TunnelAgentConfig:
                self._options(node, node.place / "credential_config", node.get("credential_config"))

    def _options(self, node: Node, place: Place, options: Any) -> None:
        """Check the options of a credential policy."""
        if not isinstance(options, Mapping):
            return
        self._secret(node, place / "file", options.get("file"), "credentials")
        if _has_secret(options):
            self._readable(
                place, node.place.file or "", "the file of this configuration, which holds credentials,"
            )

    def _secret(self, node: Node, place: Place, value: object, what: str) -> None:
        """
        Check the file with a secret.

        @param value: a path, or the secret itself.
        """
        if not isinstance(value, str) or not value:
            return
        if _PEM in value:
            what = f"the file of this configuration, which holds a {what},"
            self._readable(place, node.place.file or "", what)
        else:
            self._readable(place, value, quote(value, _LONGEST_PATH))

    def _readable(self, place: Place, file: str, shown: str) -> None:
        try:
            mode = os.stat(file).st_mode
        except (OSError, ValueError):
            return  # reported by another check
        access = mode & _FOREIGN_ACCESS & ~_EXECUTE
        if stat.S_ISREG(mode) and access:
            who = "everybody" if access & stat.S_IRWXO else "its group"
            can = "read" if access & (stat.S_IRGRP | stat.S_IROTH) else "write"
            self._findings.warn(
                place,
                f"{who} on this machine can {can} {shown} (mode {stat.S_IMODE(mode):04o}): chmod 600",
            )
