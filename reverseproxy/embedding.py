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

from reverseproxy.admin.families import Family
from reverseproxy.app import ReverseProxy
from reverseproxy.cluster.directory import ClusterDirectory
from reverseproxy.config.loader import Loaded, load, loads
from reverseproxy.endpoints.client import ClusterEndpoint
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Problem
from reverseproxy.process.reloading import Report
from reverseproxy.transport import is_supported, with_streams

log = Logger()

EVENT_INTERVAL = 0.1
"""Seconds after which an event is told at the latest."""


class State(Enum):
    """How far a L{Proxy} is."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """
    Something that has happened to an agent.

    @ivar kind: C{join}, C{leave} or C{health}.
    @ivar time: when, in seconds since 1970.
    @ivar cluster: of which cluster.
    @ivar host: the address that its connection comes from.
    @ivar identity: who it has proved to be, such as C{token:edge-7}; C{unproved} if nobody.
    @ivar reason: why, if there is a reason.
    @ivar facts: all of it, as the admin API has it.
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
    One number that is counted or measured.

    @ivar name: as Prometheus has it.
    @ivar labels: what it is the number of.
    @ivar value: the number; of a histogram, how many there were.
    """

    name: str
    labels: Mapping[str, str]
    value: float


def fast_reactor(reactor: Any) -> Any:
    """
    Get the fast connections of this project, where they work: on Linux, with a reactor that has sockets.

    @param reactor: the program's.
    @return: what to hand to L{Proxy}; it runs in the same loop, which otherwise stays as it is.
    """
    return with_streams(reactor) if is_supported(reactor) else reactor


class Proxy:
    """
    Everything that one configuration describes, in a program of its own.

    Several of them in one process have nothing in common.

    @ivar warnings: what has no effect, or may not be meant, as it is configured.
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
        Rather use L{from_file} or L{from_dict}.

        @param loaded: the configuration.
        @param read: reads it again.
        @param name: what to call it in messages.
        @param reactor: the program's, or what L{fast_reactor} makes of it.
        @param random: for all that is random.
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
        Build one of a file: JSON or YAML, as C{reverseproxy run} takes it.

        @raise ConfigError: with everything that is wrong with it.
        """
        return cls(load(path), lambda: load(path), reactor, path, random)

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], reactor: Any, name: str = "document", random: Random | None = None
    ) -> Proxy:
        """
        Build one of what would stand in a file.

        @param name: what to call it in messages.
        @raise ConfigError: with everything that is wrong with it.
        """

        def read() -> Loaded:
            return loads(json.dumps(document), name)

        return cls(read(), read, reactor, name, random)

    # running

    @property
    def state(self) -> State:
        """How far it is."""
        return self._state

    @property
    def service(self) -> IService:
        """
        The same as a service, for a program that has a tree of them.

        Whoever adds it there starts and stops it by that, and not by L{start} and L{stop}.
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
        Finish what is under way, within C{graceful_timeout} of the configuration, and close everything.

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
        Go on with another configuration, if nothing is wrong with it.

        @param document: it; L{None} to read the same file, or look at the same dictionary, again.
        @return: what has come of it; never fails.
        """
        if document is not None:
            name = self._app.living.reloading.file
            self._app.read_from(lambda: loads(json.dumps(document), name))
        return self._app.reload()

    # how it is

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where each listener is bound, by its name, such as C{127.0.0.1:2045}: the real port, for port 0."""
        return {name: each.bound for name, each in self._app.listeners.items() if each.bound is not None}

    @property
    def clusters(self) -> Mapping[str, int]:
        """How many hosts each cluster has now that may be given requests, by its name."""
        return {cluster.name: cluster.healthy for cluster in self._app.clusters}

    @property
    def servers(self) -> Mapping[str, int]:
        """How many connections there are to each tunnel server that an agent of this configuration dials."""
        found: dict[str, int] = {}
        for agent in self._app.agents:
            for server, serving in agent.by_server.items():
                found[server] = found.get(server, 0) + serving
        return found

    def metrics(self) -> tuple[Metric, ...]:
        """Look at all that is counted; C{docs/admin.rst} says what that is."""
        found = []
        for item in self._app.answer("metrics", {}):
            family = Family.from_json(item)
            for labels, value in family.samples.items():
                named = MappingProxyType(dict(zip(family.labels, labels, strict=True)))
                found.append(Metric(family.name, named, _number(value)))
        return tuple(found)

    def on_event(self, told: Callable[[Event], object]) -> Callable[[], None]:
        """
        Have a function called with each event, from now on.

        @return: ends that.
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

    # using it

    def endpoint(self, cluster: str, timeout: float | None = None) -> IStreamClientEndpoint:
        """
        Get what connects to whoever serves a cluster, through a tunnel or not.

        @param timeout: seconds to wait for a host that has room; L{None} for C{connect_timeout}
            of the cluster.
        """
        directory = ClusterDirectory()
        directory.add(self._app.clusters)
        return ClusterEndpoint(cluster, timeout, directory)


def _number(value: Any) -> float:
    if isinstance(value, Mapping):
        return float(sum(value["counts"]))
    return float(len(value)) if isinstance(value, list) else float(value)
