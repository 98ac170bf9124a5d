"""Notifications to a service manager over a real socket, and the sockets that it passes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.internet.task import Clock
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.process.service_manager import ServiceManager, handed_over


class ToldTests(SynchronousTestCase):
    def setUp(self) -> None:
        path = Path("/tmp") / f"notify-{os.getpid()}-{id(self)}"
        self.addCleanup(path.unlink)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "4000000"})
        self.clock = Clock()
        self.manager = ServiceManager(self.clock, os.environ)
        self.addCleanup(self.manager.close)

    def heard(self) -> list[list[str]]:
        heard = []
        while True:
            try:
                heard.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return heard

    def test_it_is_ready(self) -> None:
        self.manager.ready("two listeners")
        self.assertEqual(self.heard(), [["READY=1", "STATUS=two listeners"], ["WATCHDOG=1"]])

    def test_in_the_place_of_another_one(self) -> None:
        self.manager.ready("", 4711)
        self.assertEqual(self.heard()[0], ["READY=1", "MAINPID=4711"])

    def test_the_watchdog_is_fed_twice_in_its_time(self) -> None:
        self.manager.ready()
        self.heard()
        for _ in range(4):
            self.clock.advance(1.0)
        self.assertEqual(self.heard(), [["WATCHDOG=1"]] * 2)

    def test_the_rest(self) -> None:
        self.manager.reloading()
        [[first, second, _]] = self.heard()
        self.assertEqual(first, "RELOADING=1")
        self.assertRegex(second, r"^MONOTONIC_USEC=\d+$")
        self.manager.status("x")
        self.manager.stopping()
        self.assertEqual(self.heard(), [["STATUS=x"], ["STOPPING=1", "STATUS=stopping"]])

    def test_one_that_has_been_followed_is_silent(self) -> None:
        """Or the manager would take the end of the old process for that of the new one."""
        self.manager.ready()
        self.manager.forget()
        self.heard()
        self.manager.stopping()
        self.clock.advance(10)
        self.assertEqual(self.heard(), [])

    def test_nobody_listens(self) -> None:
        manager = ServiceManager(self.clock, {})
        manager.ready()
        manager.stopping()
        manager.close()
        self.assertEqual(self.heard(), [])


class HandedOverTests(SynchronousTestCase):
    def test_sockets_by_name(self) -> None:
        made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        first = max(each.fileno() for each in made) + 20
        for index, each in enumerate(made):
            os.dup2(each.fileno(), first + index)
            each.close()
        environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web:agents"}
        bequests = handed_over(ListenFDs.fromEnvironment(environ, first))
        self.assertEqual([each.name for each in bequests], ["web", "agents"])
        for each in bequests:
            self.assertFalse(os.get_inheritable(each.sockets[0].fileno()))
            each.sockets[0].close()

    def test_for_somebody_else(self) -> None:
        environ = {"LISTEN_FDS": "2", "LISTEN_PID": "1", "LISTEN_FDNAMES": "web:agents"}
        self.assertEqual(handed_over(ListenFDs.fromEnvironment(environ)), [])

    def test_none(self) -> None:
        self.assertEqual(handed_over(), [])
