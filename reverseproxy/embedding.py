"""
A tunnel server, an agent or a proxy as a part of another program.

L{Proxy} is all that such a program needs: it is built of a file or of a
dictionary, runs in a reactor of the program's, and tells how it is.  What stands
in C{__all__} here can be imported from C{reverseproxy}, and stays as it is
within a major version.
"""

from __future__ import annotations

__all__ = ["ConfigError", "Event", "Metric", "Problem", "Proxy", "Report", "State", "fast_reactor"]

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random, SystemRandom
from types import MappingProxyType
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.admin.families import merge
from reverseproxy.admin.slices import at_once
from reverseproxy.app import ReverseProxy
from reverseproxy.assembly.examination import examine
from reverseproxy.cluster.directory import ClusterDirectory
from reverseproxy.config.loader import Loaded, load, loads
from reverseproxy.endpoints.client import ClusterEndpoint
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Problem
from reverseproxy.process.reloading import Report
from reverseproxy.transport import is_supported, with_streams

log = Logger()

EVENT_INTERVAL = 0.1
"""Seconds until an event is delivered, at the latest."""


class State(Enum):
    """The state of a L{Proxy}."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """
    An event of an agent's connection.

    @ivar kind: C{join}, C{leave} or C{health}.
    @ivar time: in seconds since 1970.
    @ivar cluster: the name of the cluster.
    @ivar host: the address of the connection.
    @ivar identity: the proved identity, such as C{token:edge-7}; C{unproved} without one.
    @ivar reason: the reason; may be empty.
    @ivar facts: all fields, as in the admin API.
    """

    kind: str
    time: float
    cluster: str
    host: str
    identity: str
    reason: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """
    The value of a metric.

    @ivar name: its name in Prometheus.
    @ivar labels: its labels.
    @ivar value: its value; of a histogram, the number of observations.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def fast_reactor(reactor: Any) -> Any:
    """
    Wrap a reactor with this project's fast transport, where it works: on Linux, with a socket reactor.

    @param reactor: the program's reactor.
    @return: a reactor for L{Proxy}, which runs in the same loop; the program's reactor is not changed.
    """
    return with_streams(reactor) if is_supported(reactor) else reactor


class Proxy:
    """
    A proxy, tunnel server or agent in another program, as a configuration describes it.

    Several of them in one process are independent.

    @ivar warnings: warnings about the configuration.
    """

    def __init__(
        self,
        loaded: Loaded,
        read: Callable[[], Loaded],
        reactor: Any,
        name: str,
        random: Random | None = None,
    ) -> None:
        """
        Prefer L{from_file} or L{from_dict}.

        @param loaded: the configuration.
        @param read: reads it again.
        @param reactor: the program's reactor, or the result of L{fast_reactor}.
        @param name: the configuration's name in messages.
        @param random: the source of random numbers.
        """
        self._reactor = reactor
        self._app = ReverseProxy(loaded.config, reactor, random or SystemRandom(), name, counts=True)
        self._app.read_from(read)
        self._state = State.NEW
        self._stopping: list[Deferred[None]] = []
        self._told: list[Callable[[Event], object]] = []
        self._seen = 0
        self._telling = LoopingCall(self._tell)
        self._telling.clock = reactor
        self.warnings: tuple[Problem, ...] = (*loaded.warnings, *self._app.warnings, *self._app.missing)

    @classmethod
    def from_file(cls, path: str, reactor: Any, random: Random | None = None) -> Proxy:
        """
        Build a proxy from a configuration file: JSON, YAML or TOML, as for C{reverseproxy run}.

        @raise ConfigError: with all problems of the file.
        """
        loaded = _read(lambda: load(path), reactor)
        return cls(loaded, lambda: load(path), reactor, path, random)

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], reactor: Any, name: str = "document", random: Random | None = None
    ) -> Proxy:
        """
        Build a proxy from the content of a configuration file.

        @param name: the configuration's name in messages.
        @raise ConfigError: with all problems of the document.
        """

        def read() -> Loaded:
            return loads(json.dumps(document), name)

        return cls(_read(read, reactor), read, reactor, name, random)

    # running

    @property
    def state(self) -> State:
        """Its state."""
        return self._state

    @property
    def service(self) -> IService:
        """
        The proxy as a Twisted service, for a program with a tree of services.

        The parent service starts and stops it then, instead of L{start} and L{stop}.
        """
        return self._app

    def start(self) -> None:
        """
        Bind the listeners, and dial the servers.

        @raise ConfigError: naming each address that can't be bound; nothing is bound then.
        @raise RuntimeError: if it has been started before.
        """
        if self._state is not State.NEW:
            raise RuntimeError(f"it is {self._state.value}: make another one")
        self._app.startService()
        self._state = State.RUNNING

    def stop(self) -> Deferred[None]:
        """
        Finish requests, within C{graceful_timeout} of the configuration, and close everything.

        @return: fires when that is done.
        """
        if self._state in (State.NEW, State.STOPPED):
            self._state = State.STOPPED
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._stopping.append(waiting)
        if self._state is State.RUNNING:
            self._state = State.STOPPING
            self._app.stopService().addBoth(self._stopped)
        return waiting

    def _stopped(self, result: Any) -> None:
        self._state = State.STOPPED
        if self._telling.running:
            self._telling.stop()
            self._tell()
        waiting, self._stopping = self._stopping, []
        for each in waiting:
            each.callback(None)
        if isinstance(result, Failure):
            log.failure("stopping failed", result)

    def reload(self, document: Mapping[str, Any] | None = None) -> Deferred[Report]:
        """
        Apply another configuration, if it is valid.

        @param document: the configuration; L{None} to read the same file or dictionary again.
        @return: fires with the result; never fails.
        """
        if document is not None:
            name = self._app.living.reloading.file
            self._app.read_from(lambda: loads(json.dumps(document), name))
        return self._app.reload()

    # state

    @property
    def addresses(self) -> Mapping[str, str]:
        """The bound address of each listener by name, such as C{127.0.0.1:2045}; with the real port."""
        return {name: each.bound for name, each in self._app.listeners.items() if each.bound is not None}

    @property
    def clusters(self) -> Mapping[str, int]:
        """The number of available hosts of each cluster, by name."""
        return {cluster.name: cluster.healthy for cluster in self._app.clusters}

    @property
    def servers(self) -> Mapping[str, int]:
        """The number of connections of this configuration's agents to each tunnel server."""
        found: dict[str, int] = {}
        for agent in self._app.agents:
            for server, serving in agent.by_server.items():
                found[server] = found.get(server, 0) + serving
        return found

    def metrics(self) -> tuple[Metric, ...]:
        """Return the values of all metrics; C{docs/admin.rst} describes them."""
        found = []
        for family in at_once(merge([self._app.answer("metrics", {})])):
            for labels, value in family.samples.items():
                named = MappingProxyType(dict(zip(family.labels, labels, strict=True)))
                found.append(Metric(family.name, named, _number(value)))
        return tuple(found)

    def on_event(self, told: Callable[[Event], object]) -> Callable[[], None]:
        """
        Call a function with each event from now on.

        @return: a function that ends that.
        """
        if not self._told:
            self._seen = self._app.inspector.parts.journal.last
        self._told.append(told)
        if not self._telling.running and self._state is not State.STOPPED:
            self._telling.start(EVENT_INTERVAL, now=False)

        def end() -> None:
            if told in self._told:
                self._told.remove(told)
            if not self._told and self._telling.running:
                self._telling.stop()

        return end

    def _tell(self) -> None:
        journal = self._app.inspector.parts.journal
        for item in journal.since(self._seen, len(journal)):
            self._seen = item["id"]
            event = Event(
                item["kind"],
                item["time"],
                item.get("cluster", ""),
                item.get("host", ""),
                item.get("identity", ""),
                item.get("reason", ""),
                MappingProxyType(item),
            )
            for told in list(self._told):
                try:
                    told(event)
                except Exception:
                    log.failure("a function that is told of events failed")

    # use

    def endpoint(self, cluster: str, timeout: float | None = None) -> IStreamClientEndpoint:
        """
        Return an endpoint that connects to a host of a cluster, through a tunnel or directly.

        @param timeout: seconds to wait for an available host; L{None} for C{connect_timeout}
            of the cluster.
        """
        directory = ClusterDirectory()
        directory.add(self._app.clusters)
        return ClusterEndpoint(cluster, timeout, directory)


def _read(read: Callable[[], Loaded], reactor: Any) -> Loaded:
    """
    Read a configuration.

    @raise ConfigError: with everything that is wrong, also of what is found only by building.
    """
    try:
        return read()
    except ConfigError as error:
        raise examine(error, reactor, SystemRandom()) from None


def _number(value: Any) -> float:
    if isinstance(value, Mapping):
        return float(sum(value["counts"]))
    return float(len(value)) if isinstance(value, list) else float(value)
