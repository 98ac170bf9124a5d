"""
Listening through tunnel servers.

Such a port has an agent: it finds the servers, keeps connections to all of them,
redials and drains.  But the connections that come through them are not proxied: they
go to a Twisted factory.
"""

from __future__ import annotations

__all__ = ["TunnelPort", "TunnelServerEndpoint"]

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random, SystemRandom
from typing import Any, Final

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocol, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.app import ReverseProxy
from reverseproxy.cluster.directory import RUNNING
from reverseproxy.config.loader import loads
from reverseproxy.endpoints.addresses import TunnelAddress
from reverseproxy.endpoints.lent import LentFactory
from reverseproxy.errors import ConfigError
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink
from reverseproxy.problems import Place, Problem

log = Logger()

_PLACE: Final = ("extends", 0, "config")
"""The place of the agent's settings in the configuration document that is made of them."""

_LISTENER = "tunnel endpoint"
"""The name of the listener and the cluster that the document needs, and that are not used."""


class _Unwanted(Protocol):
    """Closes a connection, as the program's factory has built no protocol."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IConnectionSink)
class FactorySink:
    """Builds the protocols of connections through tunnels with a factory, as a listening port does."""

    def __init__(self, name: str, factory: IProtocolFactory) -> None:
        self.name = name
        self._factory = LentFactory(factory)

    def build_protocol(self, info: ConnectionInfo) -> IProtocol:
        """See L{IConnectionSink}."""
        return self._factory.buildProtocol(None) or _Unwanted()


@implementer(IListeningPort)
class TunnelPort:
    """
    A port that listens through tunnel servers.

    @ivar factory: the program's factory.
    """

    def __init__(
        self, make: Callable[[], ReverseProxy], address: TunnelAddress, factory: IProtocolFactory
    ) -> None:
        self.factory = factory
        self._make = make
        self._address = address
        self._app: ReverseProxy | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def serving(self) -> int:
        """The number of connections to tunnel servers that are ready."""
        return 0 if self._app is None else sum(agent.serving for agent in self._app.agents)

    @property
    def unserved(self) -> list[str]:
        """The tunnel servers without a connection."""
        if self._app is None:
            return list(self._address.servers)
        return [server for agent in self._app.agents for server in agent.unserved]

    def startListening(self) -> None:  # noqa: N802 - Twisted's name
        """
        Dial the servers, again and again: it is no failure if none can be reached.

        @raise CannotListenError: if it listens already, or a file of its settings can't be read.
        """
        if self._app is not None:
            raise CannotListenError("tunnel", self._address, OSError("it listens already"))
        try:
            app = self._make()
        except ConfigError as error:
            raise CannotListenError("tunnel", self._address, error) from error
        (agent,) = app.agents
        # There is no proxy here that could say that a request has not been passed on.
        agent.plan = replace(
            agent.plan, sink=FactorySink(str(self._address), self.factory), service=None, raw=False
        )
        self._app = app
        self.factory.doStart()
        app.startService()
        RUNNING.remove(app.clusters)  # the one cluster there is not used

    def stopListening(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """
        Stop gracefully: tell the servers to send nothing more, and let what is under way finish.

        @return: fires when the last connection is closed, after C{drain} seconds at the latest.
        """
        app = self._app
        if app is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            app.stopService().addBoth(self._stopped)
        return waiting

    def _stopped(self, result: object) -> None:
        self._app = None
        self.factory.doStop()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        if isinstance(result, Failure):
            log.failure("{port}: stopping failed", result, port=self)

    def getHost(self) -> TunnelAddress:
        """See L{IListeningPort}."""
        return self._address

    def __repr__(self) -> str:
        return f"<TunnelPort {self._address}>"


@implementer(IStreamServerEndpoint)
class TunnelServerEndpoint:
    """
    An endpoint that listens as a host of a cluster of one or several tunnel servers.

    @ivar address: the address of its ports.
    """

    def __init__(self, reactor: Any, settings: Mapping[str, Any], random: Random | None = None) -> None:
        """
        @param settings: the C{config} of a C{tunnel_agent}; C{cluster} and C{server_list}
            are required.  C{hosting_listener} has no meaning here.
        @param random: for the jitter of reconnecting.
        @raise ConfigError: with all problems of the settings.
        """
        self._reactor = reactor
        self._random = random or SystemRandom()
        self._document = json.dumps(_document(settings))
        try:
            loaded = loads(self._document, "tunnel")
        except ConfigError as error:
            raise _placed(error) from None
        for warning in loaded.warnings:
            log.warn("tunnel: {problem}", problem=str(_place(warning)))
        (config,) = loaded.config.agents
        self.address = TunnelAddress(tuple(config.server_list), config.cluster, config.host_name)
        self._make()  # reports problems of files, too

    def _make(self) -> ReverseProxy:
        try:
            config = loads(self._document, "tunnel").config
            return ReverseProxy(config, self._reactor, self._random, "tunnel")
        except ConfigError as error:
            raise _placed(error) from None

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803
        """
        Listen.

        @return: fires at once with a L{TunnelPort}, which connects to the servers when they
            can be reached.
        """
        port = TunnelPort(self._make, self.address, protocolFactory)
        return execute(port.startListening).addCallback(lambda _: port)


def _document(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration document with one agent."""
    listener = {
        "name": _LISTENER,
        "address": "127.0.0.1:0",
        "bind_port": False,
        "filter_chains": [{"filters": [{"type": "tcp_proxy", "config": {"cluster": _LISTENER}}]}],
    }
    agent = {"connection_num": 1, **settings, "enable": True, "hosting_listener": _LISTENER}
    return {
        "servers": [{"default_log_path": "stdout", "listeners": [listener]}],
        "cluster_manager": {"clusters": [{"name": _LISTENER}]},
        "extends": [{"type": "tunnel_agent", "config": agent}],
    }


def _place(problem: Problem) -> Problem:
    """A problem by its place in the settings."""
    keys = problem.place.keys
    within = keys[len(_PLACE) :] if keys[: len(_PLACE)] == _PLACE else keys
    return Problem.at(Place(None, within), problem.reason)


def _placed(error: ConfigError) -> ConfigError:
    return ConfigError(*map(_place, error.problems))
