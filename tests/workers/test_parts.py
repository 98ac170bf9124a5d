"""Unit tests for the counts, messages and sockets of workers."""

from __future__ import annotations

import errno
import json
import os
import pickle
import socket
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reverseproxy import __version__
from reverseproxy.config.loader import Loaded, loads
from reverseproxy.config.models import ListenerConfig
from reverseproxy.errors import VersionMismatch, WireError
from reverseproxy.listener import ListenerFailed
from reverseproxy.listener.shared_port import SharedPort
from reverseproxy.listener.sockets import open_sockets
from reverseproxy.transport import with_streams
from reverseproxy.workers import control, messages
from reverseproxy.workers.control import Setup, dump_setup, receive_setup
from reverseproxy.workers.counts import MAX_WORKERS, parse_workers, share_of
from reverseproxy.workers.messages import ControlMessageReader, encode, encode_answer
from reverseproxy.workers.worker import Worker
from tests.config.documents import TUNNEL_SERVER


class CountTests(SynchronousTestCase):
    def test_numbers(self) -> None:
        self.assertEqual([parse_workers(value) for value in (1, "2", 64, 0)], [1, 2, 64, 1])
        self.assertIn(parse_workers("auto"), range(1, MAX_WORKERS + 1))
        for value in ("", "0", "-1", -1, 65, "1.5", "many", "9" * 5000, "\u0662"):
            self.assertRaises(ValueError, parse_workers, value)

    @given(st.integers(0, 200), st.integers(1, MAX_WORKERS), st.integers(0, 100))
    def test_shares(self, total: int, workers: int, offset: int) -> None:
        shares = [share_of(total, workers, worker, offset) for worker in range(workers)]
        self.assertEqual(sum(shares), total)
        self.assertLessEqual(max(shares) - min(shares), 1)

    def test_several_agents_do_not_all_leave_the_same_ones_out(self) -> None:
        self.assertEqual([share_of(1, 3, worker, 1) for worker in range(3)], [0, 1, 0])


class MessageTests(SynchronousTestCase):
    @given(
        st.lists(st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=9) | st.integers(0, 9))),
        st.integers(1, 9),
    )
    def test_any_pieces(self, messages: list[dict[str, Any]], size: int) -> None:
        data = b"".join(map(encode, messages)) + b"rest"
        reader, found = ControlMessageReader(), []
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])
            while len(found) < len(messages) and (message := reader.next()) is not None:
                found.append(message)
        self.assertEqual(found, messages)
        self.assertEqual(reader.rest(), b"rest")

    def test_what_is_none(self) -> None:
        for data in (b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\1{", b"\0\0\0\1\xff"):
            reader = ControlMessageReader()
            reader.feed(data)
            self.assertRaises(WireError, reader.next)
        self.patch(messages, "MAX_MESSAGE", 100)
        self.assertRaises(WireError, encode, {"": "x" * 100})
        self.assertRaises(WireError, encode_answer, 1, [b'"', b"x" * 100, b'"'])

    def test_an_answer_in_pieces(self) -> None:
        reader = ControlMessageReader()
        reader.feed(b"".join(encode_answer(7, [b'{"a":', b"[1,2]", b"}"])))
        self.assertEqual(reader.next(), {"is": "answer", "number": 7, "value": {"a": [1, 2]}})
        self.assertEqual(reader.rest(), b"")


class SetupTests(SynchronousTestCase):
    def setup(self) -> Setup:
        loaded: Loaded = loads(json.dumps(TUNNEL_SERVER), "file")
        return Setup(1, 2, loaded, "file", {"clients": (5, 6)}, 4, "/tmp/x", (0, 1), {"log": ("stdout",)})

    def test_it_arrives(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(dump_setup(self.setup()) + b"more")
            self.assertEqual(receive_setup(theirs), self.setup())
            self.assertEqual(theirs.recv(9), b"more")

    def test_it_does_not(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.sendall(dump_setup(self.setup())[:100])
            ours.close()
            self.assertRaises(WireError, receive_setup, theirs)

    def refused(self, data: bytes) -> str:
        """Why a worker does not take what a supervisor of another version has sent."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(data)
            return str(self.assertRaises(VersionMismatch, receive_setup, theirs))

    def block(self, data: bytes) -> bytes:
        return len(data).to_bytes(8, "big") + data

    def test_another_version_is_installed(self) -> None:
        sent = dump_setup(self.setup())
        installed = f"the installed version, {__version__}, "
        self.patch(control, "__version__", "0.0.9")
        self.assertIn("0.0.9, is not the supervisor's, " + __version__, self.refused(sent))
        self.patch(control, "__version__", __version__)
        for version in (b"", b"0.0.9", b"\xff\n", b"9" * 64):
            text = version.decode("ascii", "backslashreplace")
            told = self.refused(self.block(version) + b"never looked at")
            self.assertTrue(told.startswith(f"{installed}is not the supervisor's, {text}: let "), told)
        # One that sent no version.
        self.assertIn(f"{installed}is not the supervisor's, which", self.refused(self.block(b"\x80" * 5000)))

    def test_other_code_of_the_same_version_is_installed(self) -> None:
        """What has moved is not found; what is found is no setup."""
        sent, version = dump_setup(self.setup()), self.block(__version__.encode())
        for data, problem in (
            (sent.replace(b"reverseproxy.workers.control", b"reverseproxy.workers.nowhere"), "nowhere"),
            (sent.replace(b"\x05Setup", b"\x05Putes"), "Putes"),
            (version + self.block(b"no pickle"), "UnpicklingError"),
            (version + self.block(pickle.dumps(["a list"])), "a list"),
        ):
            told = self.refused(data)
            self.assertIn("can't read the supervisor's setup (", told)
            self.assertIn(problem, told)


class _Who(Protocol):
    transport: Any

    def __init__(self, name: bytes) -> None:
        self._name = name

    def connectionMade(self) -> None:
        self.transport.write(self._name)


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, name: bytes) -> None:
        self._name = name

    def buildProtocol(self, addr: object) -> Any:
        return _Who(self._name)


class PortTests(TestCase):
    def config(self, address: str, **more: Any) -> ListenerConfig:
        return ListenerConfig.model_validate({"name": "a", "address": address, "bind_port": True, **more})

    def open(self, config: ListenerConfig, workers: int) -> list[socket.socket]:
        sockets = open_sockets(config, workers)
        for each in sockets:
            self.addCleanup(each.close)
        return sockets

    def test_addresses(self) -> None:
        for address in ("127.0.0.1:0", "localhost:0", "[::1]:0", ":0"):
            sockets = self.open(self.config(address), 3)
            self.assertEqual((len(sockets), len({each.getsockname() for each in sockets})), (3, 1))

    async def test_held(self) -> None:
        """Nobody is let in, nobody else gets the port, and each worker opens its own part, or another's."""
        config = self.config("127.0.0.1:0", open_when_ready=True)
        sockets = self.open(config, 2)
        address = sockets[0].getsockname()
        taken = self.config(f"127.0.0.1:{address[1]}", open_when_ready=True)
        self.assertRaises(ListenerFailed, open_sockets, taken, 2)
        ports = []
        for number in range(2):
            port = SharedPort([each.dup() for each in sockets], number, with_streams(reactor))
            port.listen(_Factory(b"%d" % number))
            self.addCleanup(port.stopListening)
            ports.append(port)
        for port in ports:
            port.stopReading()
            port.startReading()
        self.assertEqual([port.held for port in ports], [True, True])
        with socket.socket() as client:
            self.assertEqual(client.connect_ex(address), errno.ECONNREFUSED)
        ports[1].open()
        self.assertEqual({await self.answers(address) for _ in range(8)}, {b"1"})
        # One that is started now finds that its place is open.
        again = SharedPort([each.dup() for each in sockets], 1, with_streams(reactor))
        again.listen(_Factory(b"1"))
        self.addCleanup(again.stopListening)
        self.assertFalse(again.held)
        await again.stopListening()
        # The other one has ended before it opened its part.
        await ports[0].stopListening()
        ports[1].watch([0, 1])
        self.assertEqual({await self.answers(address) for _ in range(32)}, {b"1"})
        for port in ports:
            port.stop_taking()

    def test_a_taken_address(self) -> None:
        [first, *_] = self.open(self.config("127.0.0.1:0"), 2)
        taken = self.config(f"127.0.0.1:{first.getsockname()[1]}")
        error = self.assertRaises(ListenerFailed, open_sockets, taken, 2)
        self.assertIn("stop the process that has it", str(error))

    async def answers(self, address: Any, family: int = socket.AF_INET) -> bytes:
        with socket.socket(family) as client:
            client.connect(address)
            client.setblocking(False)
            while True:
                try:
                    return client.recv(9)
                except BlockingIOError:
                    await deferLater(reactor, 0.001)

    async def share(self, sockets: list[socket.socket], family: int = socket.AF_INET) -> None:
        address = sockets[0].getsockname()
        ports = []
        for number in range(2):
            copies = [each.dup() for each in sockets]
            port = SharedPort(copies, number, with_streams(reactor))
            port.listen(_Factory(b"%d" % number))
            ports.append(port)
            self.addCleanup(port.stopListening)
        for port in ports:
            self.assertEqual(str(port.getHost()), str(ports[0].getHost()))
        seen = {await self.answers(address, family) for _ in range(64)}
        self.assertLessEqual(seen, {b"0", b"1"})
        if len(sockets) > 1:
            self.assertEqual(seen, {b"0", b"1"})
        # One accepts nothing for a while.
        for port in ports:
            port.stopReading()
        waiting = self.answers(address, family)
        answer = Deferred.fromCoroutine(waiting)
        await deferLater(reactor, 0.02)
        self.assertFalse(answer.called)
        for port in ports:
            port.startReading()
        self.assertIn(await answer, {b"0", b"1"})
        # One is away: the other one stands in.
        await ports[1].stopListening()
        ports[0].watch([0, 1])
        self.assertEqual({await self.answers(address, family) for _ in range(32)}, {b"0"})
        ports[0].watch([0])
        await ports[0].stopListening()
        ports[0].watch([0, 1])

    async def test_tcp(self) -> None:
        await self.share(self.open(self.config("127.0.0.1:0"), 2))

    async def test_unix(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        path = os.path.relpath(directory / "socket")
        await self.share(self.open(self.config(path, network="unix"), 2), socket.AF_UNIX)
        self.assertTrue(os.path.exists(path), "it is not a worker's to remove")


class WorkerTests(SynchronousTestCase):
    def test_what_a_supervisor_leaves_behind(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "0.sock").touch()
        setup = Setup(0, 1, loads(json.dumps(TUNNEL_SERVER), "file"), "file", {}, -1, str(directory), (), {})
        ours, theirs = socket.socketpair()
        with ours, theirs:
            worker = Worker(setup, theirs, reactor)
            worker.stop()
            self.assertTrue(directory.exists())
            worker._parent = 0  # it is gone, and we have another
            worker.stop()
            self.assertFalse(directory.exists())


class InheritedPortTests(SynchronousTestCase):
    """Sockets of a process that had another number of workers."""

    def test_each_socket_is_somebody_s(self) -> None:
        for sockets in range(1, 8):
            for workers in range(1, 8):
                made = [socket.socket() for _ in range(sockets)]
                for each in made:
                    self.addCleanup(each.close)
                shares = [SharedPort(made, own, None, workers)._of_workers([own]) for own in range(workers)]
                self.assertTrue(all(shares))
                self.assertEqual(set().union(*shares), set(range(sockets)))
                if workers == sockets:
                    self.assertEqual(shares, [{own} for own in range(workers)])
