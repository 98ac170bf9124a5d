"""A worker's side of the channel to its supervisor."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.loader import Loaded, loads
from reverseproxy.errors import WireError
from reverseproxy.workers import messages
from reverseproxy.workers.control import Setup
from reverseproxy.workers.messages import ControlMessageReader, encode
from reverseproxy.workers.worker import Worker
from tests.integration.configs import quick_agent
from tests.tunnel.logged import capture


class Service:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answers: list[Deferred[list[bytes]]] = []

    def told(self, message: Any) -> None:
        self.calls.append(message["do"])

    def ask_encoded(self, question: str, arguments: Any) -> Deferred[list[bytes]]:
        self.calls.append(f"{question} {arguments}")
        return self.answers.pop(0)

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


class WorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loaded: Loaded = loads(json.dumps(quick_agent(1, connections=3)), "file")
        self.wire = StringTransport()
        self.service = Service()

    def make(self, number: int = 0, workers: int = 2, **listening: tuple[int, ...]) -> Worker:
        link = socket.socket(socket.AF_UNIX)
        self.addCleanup(link.close)
        setup = Setup(
            number, workers, self.loaded, "file", listening, os.dup(link.fileno()), "/nowhere", (0, 1), {}
        )
        channel, self.other = socket.socketpair()
        self.addCleanup(self.other.close)
        worker = Worker(setup, channel, reactor)
        worker._channel = None
        channel.close()
        worker._control.makeConnection(self.wire)
        worker.start(self.service)
        return worker

    def messages(self) -> Iterator[Any]:
        reader = ControlMessageReader()
        reader.feed(self.wire.value())
        self.wire.clear()
        while (message := reader.next()) is not None:
            yield message

    def told(self) -> list[str]:
        return [message["is"] for message in self.messages()]

    def tell(self, worker: Worker, word: str, **more: Any) -> None:
        worker._control.dataReceived(encode({"do": word, **more}))

    def test_it_says_when_it_is_ready(self) -> None:
        self.make()
        self.assertEqual(self.told(), ["ready"])

    def test_what_it_is_told(self) -> None:
        worker = self.make()
        for word in ("reload", "keep_out", "reopen", "let_in", "drain", "cut"):
            self.tell(worker, word)
        self.assertEqual(
            self.service.calls,
            ["reload_certificates", "keep_out", "reopen_logs", "let_in", "terminate", "cut_short"],
        )

    def test_answers(self) -> None:
        worker = self.make()
        self.told()
        for number, answer in ((1, succeed([b"[1", b",2]"])), (2, fail(ValueError("wrong")))):
            self.service.answers.append(answer)
            self.tell(worker, "answer", number=number, question="metrics", arguments={"a": 1})
        self.assertEqual(self.service.calls, ["metrics {'a': 1}"] * 2)
        self.assertEqual(
            list(self.messages()),
            [
                {"is": "answer", "number": 1, "value": [1, 2]},
                {"is": "answer", "number": 2, "problem": "failed: wrong"},
            ],
        )
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_an_answer_that_is_too_long(self) -> None:
        worker = self.make()
        self.told()
        self.patch(messages, "MAX_MESSAGE", 200)
        self.service.answers.append(succeed([b'"', b"x" * 200, b'"']))
        self.tell(worker, "answer", number=1, question="metrics", arguments={})
        [message] = self.messages()
        self.assertIn("bytes can't be sent to another process", message["problem"])
        self.assertEqual(len(self.flushLoggedErrors(WireError)), 1)

    def test_it_waits_for_the_others(self) -> None:
        worker = self.make()
        self.tell(worker, "drain")
        worker.stopping()
        drained = worker.drained()
        self.assertEqual(self.told(), ["ready", "drained"])
        self.assertNoResult(drained)
        self.tell(worker, "finish")
        self.successResultOf(drained)
        self.successResultOf(worker.drained())

    def test_it_stops_alone(self) -> None:
        worker = self.make()
        withdrawn: list[int] = []
        siblings = worker.join(ClusterManager())
        self.patch(siblings, "withdraw", lambda: withdrawn.append(1))
        worker.stopping()
        worker.drained()
        self.assertEqual((self.told(), withdrawn), (["ready", "draining", "drained"], [1]))

    def test_it_is_cut_short(self) -> None:
        worker = self.make()
        drained = worker.drained()
        self.tell(worker, "cut")
        self.successResultOf(drained)

    def test_the_supervisor_is_gone(self) -> None:
        worker = self.make()
        with capture() as events:
            worker._control.connectionLost()
        self.assertIn("the supervisor is gone", events.text())
        self.assertEqual(self.service.calls, ["terminate"])
        self.successResultOf(worker.drained())

    def test_the_supervisor_goes_at_the_end(self) -> None:
        worker = self.make()
        worker.stopping()
        with capture() as events:
            worker._control.connectionLost()
        self.assertEqual((events.text(), self.service.calls), ("", []))

    def test_its_part_of_an_agent(self) -> None:
        [agent] = self.loaded.config.agents
        shares = []
        for number in range(4):
            share = self.make(number, 4).share_of_agent(agent, 0)
            shares.append(None if share is None else share.connection_num)
        self.assertEqual(shares, [1, 1, 1, None])

    def test_its_ports(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            worker = self.make(clients=(os.dup(listening.fileno()),))
            self.assertIsNone(worker.listen_for("others"))
            self.assertIsNotNone(worker.listen_for("clients"))
            for port in worker._ports.values():
                port.stopListening()
