"""The takeover of one process's sockets by another process."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from reverseproxy.config.models import ListenerConfig
from reverseproxy.listener import shared_port
from reverseproxy.listener.shared_port import SharedPort
from reverseproxy.process.inherited_sockets import AGENTS_PORT, InheritedSockets, ListenerSockets
from reverseproxy.process.takeover import MAX_CLAIMS, OTHER, TakeoverFailed, TakeoverServer, take_over
from tests.tunnel.logged import capture


def listening() -> socket.socket:
    made = socket.create_server(("127.0.0.1", 0))
    made.setblocking(False)
    return made


class TakeOverTests(TestCase):
    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).resolve())[-90:]
        self.path = os.path.join("/tmp", f"rp-{os.getpid()}-{id(self)}")
        self.bequests: list[ListenerSockets] = []
        self.succeeded: list[int] = []
        self.testator = TakeoverServer(self.path, reactor, self.bequeath, lambda: self.succeeded.append(1))
        self.testator.start()
        self.addCleanup(self.testator.stop)

    def bequeath(self) -> list[ListenerSockets]:
        return [
            ListenerSockets(each.name, each.address, tuple(one.dup() for one in each.sockets))
            for each in self.bequests
        ]

    def has(self, name: str, address: str, count: int) -> list[socket.socket]:
        sockets = [listening() for _ in range(count)]
        for each in sockets:
            self.addCleanup(each.close)
        self.bequests.append(ListenerSockets(name, address, tuple(sockets)))
        return sockets

    async def take(self) -> Any:
        successor = await deferToThread(take_over, self.path)
        assert successor is not None
        for bequest in successor.bequests:
            for each in bequest.sockets:
                self.addCleanup(each.close)
        return successor

    async def test_the_very_sockets(self) -> None:
        """What waits to be accepted is accepted by whoever is first."""
        [given] = self.has("one", "127.0.0.1:0", 1)
        with socket.create_connection(given.getsockname()):
            successor = await self.take()
            [bequest] = successor.bequests
            self.assertEqual((bequest.name, bequest.address), ("one", "127.0.0.1:0"))
            [taken] = bequest.sockets
            given.close()
            accepted, _ = taken.accept()
            accepted.close()

    async def test_many(self) -> None:
        for number in range(3):
            self.has(f"listener {number}", "127.0.0.1:0", 150)
        successor = await self.take()
        self.assertEqual([len(each.sockets) for each in successor.bequests], [150] * 3)
        for given, taken in zip(self.bequests, successor.bequests, strict=True):
            self.assertEqual(
                [each.getsockname() for each in given.sockets], [each.getsockname() for each in taken.sockets]
            )

    async def test_what_agents_have_brought(self) -> None:
        claims = [{"cluster": "one", "domains": ["a.example"]}, {"cluster": "two", "port": 1}]
        self.has("one", "127.0.0.1:0", 2)
        self.testator._claims = lambda: claims
        successor = await self.take()
        self.assertEqual(successor.claims, claims)
        self.assertEqual([len(each.sockets) for each in successor.bequests], [2])

    async def test_no_more_of_that_than_there_is_room_for(self) -> None:
        claims = [{"cluster": f"{number}", "domains": ["x" * 250]} for number in range(2000)]
        self.testator._claims = lambda: claims
        with capture() as logged:
            successor = await self.take()
        self.assertEqual(successor.claims, claims[: len(successor.claims)])
        self.assertTrue(100 < len(successor.claims) < MAX_CLAIMS / 250)
        self.assertIn("not all routes", logged.text())

    async def test_none(self) -> None:
        self.assertEqual(list((await self.take()).bequests), [])

    async def test_it_serves(self) -> None:
        successor = await self.take()
        self.assertEqual(self.succeeded, [])
        successor.serves()
        while not self.succeeded:
            await deferToThread(lambda: None)
        # The next one listens at the same path before this one stops.
        other = TakeoverServer(self.path, reactor, self.bequeath, lambda: None)
        other.start()
        self.testator.stop()
        self.assertTrue(os.path.exists(self.path))
        other.stop()
        self.assertFalse(os.path.exists(self.path))

    async def test_it_could_not_be_started(self) -> None:
        with capture() as logged:
            successor = await self.take()
            successor._connection.close()
            while "has not taken our place" not in logged.text():
                await deferToThread(lambda: None)
        self.assertEqual(self.succeeded, [])
        (await self.take()).serves()
        while not self.succeeded:
            await deferToThread(lambda: None)

    async def test_two_at_once(self) -> None:
        """Both would serve for ever, and only one of them could be followed by another one."""
        [given] = self.has("one", "127.0.0.1:0", 1)
        first = await self.take()
        self.assertFalse(self.testator.open)
        error = await self.assertFailure(deferToThread(take_over, self.path), TakeoverFailed)
        self.assertIn(OTHER, str(error))
        first.serves()
        while not self.succeeded:
            await deferToThread(lambda: None)
        self.assertEqual(self.succeeded, [1])
        self.assertNotEqual(given.fileno(), -1)

    async def test_one_that_stops(self) -> None:
        """Whoever is started then finds nobody, and whoever is about to take over is not followed."""
        successor = await self.take()
        self.testator.stop()
        self.assertFalse(self.testator.open)
        self.assertIsNone(await deferToThread(take_over, self.path))
        successor.serves()
        self.testator.stop()
        self.assertEqual(self.succeeded, [])

    def test_nobody_else_may(self) -> None:
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)


class NobodyTests(TestCase):
    def test_nobody_is_there(self) -> None:
        self.assertIsNone(take_over(self.mktemp()))

    def answer(self, data: bytes) -> str:
        path = os.path.join("/tmp", f"rp-{os.getpid()}-{id(self)}")
        self.addCleanup(os.unlink, path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(data)

            thread = threading.Thread(target=serve)
            thread.start()
            error = self.assertRaises(TakeoverFailed, take_over, path)
            thread.join()
        return str(error)

    def test_it_breaks_off(self) -> None:
        self.assertIn("it ended before it had given all", self.answer(b"\0\0\0\x40["))

    def test_it_has_too_much_to_say(self) -> None:
        self.assertIn("its list has 4294967295 bytes", self.answer(b"\xff\xff\xff\xff"))

    def test_it_is_somebody_else(self) -> None:
        self.assertIn("gives no sockets", self.answer(b"\0\0\0\x03[1]"))


class OtherFileTests(TestCase):
    """What is no socket is not replaced by one."""

    def test_a_file(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        file = directory / "file"
        file.write_text("kept")
        for path in (file, directory):
            error = self.assertRaises(TakeoverFailed, take_over, str(path))
            self.assertIn("is no socket", str(error))
            server = TakeoverServer(str(path), reactor, list, lambda: None)
            self.assertRaises(FileExistsError, server.start)
            server.stop()
        self.assertEqual(file.read_text(), "kept")
        self.assertEqual(list(directory.iterdir()), [file])

    def test_no_place_for_a_socket(self) -> None:
        """That is told at once, and not only when the process serves."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for path, reason in (
            (directory / "missing" / "socket", "No such file or directory"),
            (Path("/proc/self/socket"), ""),
            (directory / ("x" * 200), "AF_UNIX path too long"),
        ):
            error = self.assertRaises(TakeoverFailed, take_over, str(path))
            self.assertIn(f"no socket can be made at {path}: {reason}", str(error))
        self.assertIsNone(take_over(str(directory / "socket")))
        self.assertEqual(list(directory.iterdir()), [])


class InheritanceTests(TestCase):
    def take(self, bequest: ListenerSockets, **config: Any) -> bool:
        inheritance = InheritedSockets()
        inheritance.add([bequest])
        return bool(inheritance.take(ListenerConfig(bind_port=True, **config)))

    def test_who_gets_what(self) -> None:
        with listening() as made:
            port = made.getsockname()[1]
            ours = ListenerSockets("web", "127.0.0.1:0", (made,))
            self.assertTrue(self.take(ours, name="web", address="127.0.0.1:0"))
            self.assertTrue(self.take(ours, name="other", address=f"127.0.0.1:{port}"))
            self.assertTrue(self.take(ours, name="other", address=f"localhost:{port}"))
            self.assertFalse(self.take(ours, name="other", address="127.0.0.1:0"))
            self.assertFalse(self.take(ours, name="web", address="127.0.0.2:0"))
            self.assertFalse(self.take(ours, name="other", address=f"127.0.0.2:{port}"))
            self.assertFalse(self.take(ours, name="other", address=f":{port}"))
            self.assertFalse(self.take(ours, name="other", address="unix:/web"))
            named = ListenerSockets("web", "", (made,))
            self.assertTrue(self.take(named, name="web", address="127.0.0.1:1"))

    def test_what_somebody_may_want_later(self) -> None:
        """A port that an agent has brought, which is about to join again."""
        inheritance = InheritedSockets()
        with listening() as web, listening() as brought:
            inheritance.add(
                [
                    ListenerSockets("web", "", (web,)),
                    ListenerSockets(f"{AGENTS_PORT} 7", "127.0.0.1:7", (brought,)),
                ]
            )
            self.assertEqual(inheritance.close(AGENTS_PORT), ["web"])
            wanted = ListenerConfig(name=f"{AGENTS_PORT} 7", address="127.0.0.1:7", bind_port=True)
            self.assertEqual(inheritance.take(wanted), [brought])
            self.assertEqual(inheritance.close(), [])

    def test_what_nobody_wants(self) -> None:
        inheritance = InheritedSockets()
        made = listening()
        inheritance.add([ListenerSockets("web", "", (made,))])
        self.assertEqual(inheritance.close(), ["web"])
        self.assertEqual(made.fileno(), -1)
        self.assertEqual(inheritance.close(), [])

    async def test_the_file_of_a_socket_of_systemd(self) -> None:
        """It goes with systemd, not with us, nor with whoever takes our place."""
        inheritance = InheritedSockets()
        self.patch(shared_port, "INHERITED", inheritance)
        path = f"/tmp/inherited-{os.getpid()}-{id(self)}"
        self.addCleanup(os.unlink, path)
        made = socket.socket(socket.AF_UNIX)
        made.setblocking(False)
        made.bind(path)
        made.listen()
        inheritance.add([ListenerSockets("web", "", (made.dup(),))])
        config = ListenerConfig(name="web", address=path, network="unix", bind_port=True)
        self.assertEqual(inheritance.pass_on(path), path)
        port = SharedPort(inheritance.take(config), 0, reactor, 1, True)
        port.listen(Factory())
        self.assertEqual(inheritance.pass_on(f"unix:{path}"), "")
        await port.stopListening()
        made.close()
        self.assertTrue(os.path.exists(path))
