"""One worker: what it has to do with the supervisor, and with its siblings."""

from __future__ import annotations

__all__ = ["Worker"]

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import TunnelAgentConfig
from reverseproxy.errors import ConfigError
from reverseproxy.listener import Listen
from reverseproxy.listener.shared_port import SharedPort
from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.workers.control import Control, Setup
from reverseproxy.workers.counts import share_of
from reverseproxy.workers.handover import Handed, receive
from reverseproxy.workers.messages import Message
from reverseproxy.workers.orphan import wake_with_parent
from reverseproxy.workers.route_client import RouteArbiterClient
from reverseproxy.workers.siblings import Siblings

log = Logger()


@dataclass
class PreparedConfig:
    """
    A configuration that a worker has prepared, and not committed yet.

    @ivar turn: the number of the change.
    @ivar handed: the configuration.
    @ivar sockets: its new sockets.
    @ivar prepared: the parts that were built; L{None} if that failed.
    """

    turn: int
    handed: Handed
    sockets: list[socket.socket]
    prepared: Any = None


class Worker:
    """
    A worker's connection to its supervisor and to its siblings.

    Build the service with it, and then L{start} it.

    @ivar number: its number, from 0.
    @ivar workers: how many workers there are.
    @ivar siblings: the other workers; L{None} before L{join}.
    @ivar route_client: asks the supervisor about routes that agents bring.
    """

    siblings: Siblings | None = None
    on_fleet: Callable[[Message], object] = staticmethod(lambda message: None)

    def __init__(self, setup: Setup, channel: socket.socket, reactor: Any) -> None:
        """
        @param channel: to the supervisor.
        """
        self.number = setup.number
        self.workers = setup.workers
        self._setup = setup
        self._reactor = reactor
        self._channel: socket.socket | None = channel
        self._control = Control(self._received, self._orphaned)
        self._service: Any = None
        self._finish: Deferred[None] | None = None
        self._may_finish = False
        self._told = False
        self._parent = os.getppid()
        self._orphan_noticed: Callable[[], None] = lambda: None
        self._alone = False  # it stops, and the others do not
        self._watched: Any = setup.watch
        self._waiting: PreparedConfig | None = None
        self._handover: Any = None
        if setup.handover >= 0:
            self._handover = socket.socket(fileno=setup.handover)
            self._handover.setblocking(False)
        handover = self._handover
        self.route_client = RouteArbiterClient(
            self._control.send, self.number, self.workers, handover, reactor
        )
        self._ports: dict[str, SharedPort] = {}
        for name, descriptors in setup.listening.items():
            sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            self._ports[name] = SharedPort(sockets, self.number, reactor, self.workers)

    def wake_with_parent(self) -> None:
        """Release the ports when the supervisor ends, even if this worker is stopped or hangs."""
        self._orphan_noticed = wake_with_parent(self._parent)

    # this worker's share

    def listen_for(self, listener: str) -> Listen | None:
        """Return how a listener listens; L{None} if it binds nothing."""
        port = self._ports.get(listener)
        return None if port is None else port.listen

    def share_of_agent(self, config: TunnelAgentConfig, index: int) -> TunnelAgentConfig | None:
        """
        Return an agent's configuration with this worker's share of its connections.

        @param index: the agent's index in the configuration.
        @return: L{None} if the share is 0.
        """
        share = share_of(config.connection_num, self.workers, self.number, index)
        return config.model_copy(update={"connection_num": share}) if share else None

    def speak_for_fleet(self, heard: Callable[[Message], object]) -> Callable[[Message], object]:
        """
        Be the worker that knows the fleet; see L{reverseproxy.workers.fleet_routes}.

        @param heard: called with messages of the supervisor about routes.
        @return: sends the supervisor a message.
        """
        self.on_fleet = heard
        return self._control.send

    def say(self, message: Message) -> None:
        """Send the supervisor a message."""
        self._control.send(message)

    def join(self, clusters: ClusterManager) -> Siblings:
        """Share the hosts of clusters with the siblings."""
        self.siblings = Siblings(self.number, self.workers, clusters, self._reactor)
        self.route_client.servers = self.siblings.servers
        return self.siblings

    # running

    def start(self, service: Any) -> None:
        """
        Link to the siblings, and obey the supervisor.

        @param service: has C{terminate}, C{cut_short}, C{reload_certificates},
            C{reopen_logs}, C{ask_encoded}, C{told} and C{living}.
        """
        self._service = service
        self._watch(self._setup.watch)
        if self.siblings is not None:
            self.siblings.start(self._setup.directory, socket.socket(fileno=self._setup.link))
        channel, self._channel = self._channel, None
        if channel is not None:
            with channel:
                self._reactor.adoptStreamConnection(
                    channel.fileno(), socket.AF_UNIX, CallableFactory(lambda: self._control)
                )
        self._control.send({"is": "ready"})

    @property
    def seed(self) -> str:
        """A string that all workers of this supervisor share, and no others."""
        return self._setup.directory

    @property
    def alone(self) -> bool:
        """Whether this worker stops alone."""
        return self._alone

    def stopping(self) -> None:
        """Report that this worker stops, and if it stops alone, move its connections to siblings."""
        if not self._told:
            self._told = self._alone = True
            self._control.send({"is": "draining"})
            if self.siblings is not None:
                self.siblings.drain()

    def drained(self) -> Deferred[None]:
        """
        Report that this worker's clients have no more requests under way.

        @return: fires when those of the other workers don't need this worker's agents any more.
        """
        if self._may_finish or not self._control.connected:
            return succeed(None)
        self._finish = Deferred()
        self._control.send({"is": "drained"})
        if self._alone and self.siblings is not None:
            self.siblings.withdraw()
        return self._finish

    def stop(self) -> None:
        """Close the links to the siblings."""
        if self.siblings is not None:
            self.siblings.stop()
        if os.getppid() != self._parent:
            # The supervisor would do so, but it has died.
            shutil.rmtree(self._setup.directory, ignore_errors=True)

    def let_finish(self) -> None:
        """Wait no longer for the other workers."""
        self._may_finish = True
        finish, self._finish = self._finish, None
        if finish is not None:
            finish.callback(None)

    def _watch(self, numbers: Any) -> None:
        self._watched = numbers
        for port in self._ports.values():
            port.watch(numbers)
        self.route_client.watch(numbers)

    def _received(self, message: Message) -> None:
        match message["do"]:
            case "watch":
                self._watch(message["slots"])
            case "ping":
                self._control.send({"is": "there"})
            case "drain":
                self._told = True
                self._service.succeeded = bool(message.get("succeeded"))
                self._service.terminate()
            case "replace":
                self._service.terminate()
            case "cut":
                self._service.cut_short()
                self.let_finish()
            case "finish":
                self.let_finish()
            case "prepare" | "commit" | "discard":
                self._change(message)
            case "bring" | "claimed" | "take_away":
                self.route_client.received(message)
            case "fleet_ask" | "fleet_withdraw" | "fleet_count" | "fleet_adopt" | "fleet_brought":
                self.on_fleet(message)
            case "keep_out" | "let_in" | "reload" | "reopen":
                self._tell_service(message)
            case "answer":
                self._answer(message)

    def _tell_service(self, message: Message) -> None:
        """Pass on a message that concerns the service."""
        match message["do"]:
            case "reload":
                self._service.reload_certificates()
            case "reopen":
                self._service.reopen_logs()
            case _:
                self._service.told(message)

    # another configuration

    def _change(self, message: Message) -> None:
        """Take a step of a change of configuration."""
        turn = message["turn"]
        match message["do"]:
            case "prepare":
                self._prepare(turn, message["descriptors"])
            case "commit":
                self._commit(turn)
            case "discard":
                self._discard(turn)

    def _prepare(self, turn: int, descriptors: int) -> None:
        """Prepare a configuration, and report its problems."""
        problems: list[Problem] = []
        try:
            handed, sockets = receive(self._handover, descriptors)
            waiting = self._waiting = PreparedConfig(turn, handed, sockets)
            waiting.prepared = self._service.living.prepare(handed.loaded, bind=False)
        except ConfigError as error:
            problems = [*error.problems]
        except Exception as error:
            log.failure("this worker can't get ready for another configuration")
            problems = [Problem.at(DOCUMENT, f"worker {self.number + 1} failed: {error!r}"[:500])]
        if problems:
            self._discard(turn)
        self._control.send(
            {"is": "prepared", "turn": turn, "problems": [each.to_message() for each in problems]}
        )

    def _discard(self, turn: int) -> None:
        waiting = self._waiting
        if waiting is None or waiting.turn != turn:
            return
        self._waiting = None
        if waiting.prepared is not None:
            waiting.prepared.discard()
        for each in waiting.sockets:
            each.close()

    def _commit(self, turn: int) -> None:
        """Use the prepared configuration."""
        waiting = self._waiting
        if waiting is None or waiting.turn != turn or waiting.prepared is None:
            return
        self._waiting = None
        handed, old = waiting.handed, self._ports
        left = iter(waiting.sockets)
        opened = {
            name: SharedPort([next(left) for _ in range(number)], self.number, self._reactor, self.workers)
            for name, number in handed.opened.items()
        }
        self._ports = {
            each.name: port
            for each in handed.loaded.config.listening
            if each.bind_port
            and (port := opened.get(each.name) or old.get(handed.moved.get(each.name, each.name))) is not None
        }
        prepared = waiting.prepared
        prepared.assembly.bind()
        for problem in prepared.assembly.findings.errors:
            log.error("{problem}", problem=str(problem))
        self._service.living.commit(prepared)
        self._watch(self._watched)
        self._control.send({"is": "committed", "turn": turn})

    def _answer(self, message: Message) -> None:
        """Answer a question of the supervisor, with a problem if that fails."""
        number = message["number"]

        def failed(reason: Failure) -> None:
            log.failure("a question of the supervisor could not be answered", reason)
            problem = f"failed: {reason.getErrorMessage()}"[:500]
            self._control.send({"is": "answer", "number": number, "problem": problem})

        asked: Deferred[Any] = maybeDeferred(
            self._service.ask_encoded, message["question"], message["arguments"]
        )
        asked.addCallback(partial(self._control.send_answer, number)).addErrback(failed)

    def _orphaned(self) -> None:
        self._orphan_noticed()
        self.let_finish()
        if not self._told:
            self._told = True
            log.error("the supervisor is gone, so this worker stops")
            # At once, before the requests are done: the next supervisor needs the ports.
            for port in self._ports.values():
                port.stopListening()
            self.route_client.stop_accepting()
            self._service.terminate()
