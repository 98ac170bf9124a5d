"""Bind the addresses of a configuration's listeners."""

from __future__ import annotations

__all__ = ["bind_all", "listen_at", "say_bound"]

import socket
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from reverseproxy.addresses import is_unix, split_host_port
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import ListenerConfig, PeersConfig
from reverseproxy.listener.shared_port import SharedPort
from reverseproxy.listener.sockets import BACKLOG, NO_IPV6, ListenerFailed, open_sockets, remove_stale_socket
from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.process.inherited_sockets import INHERITED


def listen_at(reactor: Any, config: ListenerConfig, factory: IProtocolFactory, mode: int) -> IListeningPort:
    """
    Listen at the address of a configuration.

    @param mode: the permissions of a Unix socket.
    """
    address = config.address
    port: IListeningPort
    if INHERITED.keeps or (config.open_when_ready and hasattr(reactor, "adoptStreamPort")):
        # Twisted's ports can't be passed on: they shut their sockets down when they are closed.
        return SharedPort(open_sockets(config, 1, mode), 0, reactor, 1, True).listen(factory)
    if config.network == "unix" or is_unix(address):
        path = address.removeprefix("unix:")
        remove_stale_socket(path)
        port = reactor.listenUNIX(path, factory, BACKLOG, mode)
        return port
    host, number = split_host_port(address)
    if not host:
        # As in Go: all addresses, of IPv6 and of IPv4.
        try:
            return _adopt(reactor, config, socket.AF_INET6, ("::", number), factory, both=True)
        except OSError as error:
            if error.errno not in NO_IPV6:
                raise
        host = "0.0.0.0"  # noqa: S104 - what the configuration says
    if not config.reuseport:
        port = reactor.listenTCP(number, factory, BACKLOG, host)
        return port
    family, _, _, _, name = socket.getaddrinfo(
        host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return _adopt(reactor, config, family, name, factory)


def _adopt(
    reactor: Any,
    config: ListenerConfig,
    family: int,
    name: Any,
    factory: IProtocolFactory,
    both: bool = False,
) -> IListeningPort:
    """
    Listen on a socket with options that Twisted does not set.

    @param both: whether to accept IPv4 too, whatever the system's default.
    """
    with socket.socket(family, socket.SOCK_STREAM) as shared:
        shared.setblocking(False)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if both:
            shared.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if config.reuseport:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(name)
        shared.listen(BACKLOG)
        port: IListeningPort = reactor.adoptStreamPort(shared.fileno(), family, factory)
        return port


def say_bound(
    write: Callable[..., None], config: ListenerConfig, address: str, secure: bool, held: bool
) -> None:
    """Log that an address is bound, and whether it accepts clients already."""
    write(
        "listener {listener} has {address}{tls}, and lets clients in once each required cluster has a host"
        if held
        else "listener {listener} listening on {address}{tls}",
        listener=config.name,
        address=address,
        tls=" (TLS)" if secure else "",
    )


def bind_all(
    configs: Iterable[ListenerConfig], bind: Callable[[ListenerConfig], object], admin: Any, file: str
) -> None:
    """
    Bind all listeners of a configuration, and its admin API.

    @param bind: binds one, or raises L{ListenerFailed}.
    @param admin: the service of the admin API; L{None} if there is none.
    @param file: the configuration file.
    @raise ConfigError: naming each address that can't be bound.
    """
    findings = Diagnostics(file)
    for index, config in enumerate(configs):
        try:
            bind(config)
        except ListenerFailed as error:
            place = DOCUMENT / "servers" / 0 / "listeners" / index
            if config.name == PeersConfig.listener_name:
                place = DOCUMENT / "fleet" / "peers"
            findings.add(Problem.at(place / "address", str(error)))
    if admin is not None:
        findings.attempt(DOCUMENT / "admin", admin.privilegedStartService)
    findings.raise_errors()
