"""Tests for L{reverseproxy.command.system_checks}."""

from __future__ import annotations

import os
import socket
from importlib import metadata
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command import system_checks
from reverseproxy.command.system_checks import FAIL, OK, WARN, Finding, clock, descriptors, port, versions
from reverseproxy.config.models import ListenerConfig


class MachineTests(SynchronousTestCase):
    def test_text(self) -> None:
        self.assertEqual(str(Finding(OK, "a", "b")), "ok   a: b")
        self.assertEqual(str(Finding(FAIL, "a", "b", "c")), "FAIL a: b\n     -> c")

    def test_versions(self) -> None:
        installed = {"click": "8.1.6", "Automat": "26.1.0"}

        def version(name: str) -> str:
            if name not in installed:
                raise metadata.PackageNotFoundError
            return installed[name]

        requirements = ["click>=8.1.7", "Automat>=24.8.1", "twisted[tls]>=24.11", 'ruff>=1; extra == "test"']
        self.patch(system_checks.metadata, "requires", lambda _: requirements)
        self.patch(system_checks.metadata, "version", version)
        first, *found = versions()
        self.assertEqual(first.level, OK)
        self.assertIn("OpenSSL", first.detail)
        self.assertEqual(
            [(each.level, each.detail) for each in found],
            [
                (FAIL, "click is 8.1.6, and has to be 8.1.7 or newer"),
                (FAIL, "twisted is not installed"),
            ],
        )

    def test_versions_of_a_checkout(self) -> None:
        def requires(name: str) -> None:
            raise metadata.PackageNotFoundError

        self.patch(system_checks.metadata, "requires", requires)
        self.assertEqual(len(list(versions())), 1)

    def test_descriptors(self) -> None:
        (many,), (few,) = descriptors(65536), descriptors(1024)
        self.assertEqual((many.level, few.level), (OK, WARN))
        self.assertIn("for 768 connections", few.detail)
        self.assertIn("LimitNOFILE", few.remedy)
        self.assertEqual(len(list(descriptors())), 1)

    def test_clock(self) -> None:
        now = 1_800_000_000.0
        for moment, state, level in (
            (now, 0, OK),
            (now, None, OK),
            (now, 5, WARN),
            (0.0, 0, FAIL),
        ):
            (found,) = clock(lambda moment=moment: moment, lambda state=state: state)
            self.assertEqual(found.level, level, (moment, state))
        (real,) = clock()
        self.assertIn(real.level, (OK, WARN))

    def test_ports(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            listener = ListenerConfig(name="a", address=f"127.0.0.1:{number}", bind_port=True)
            (found,) = port(listener)
            self.assertEqual((found.level, found.what), (WARN, "listener a"))
            self.assertIn("ss -ltnp", found.remedy)
            self.assertEqual(list(port(listener.model_copy(update={"bind_port": False}))), [])
        self.assertEqual([each.level for each in port(listener)], [OK])
        for address, level in (("127.0.0.1:0", OK), ("[::1]:0", OK), (":0", OK), ("203.0.113.1:0", FAIL)):
            (found,) = port(listener.model_copy(update={"address": address}))
            self.assertEqual(found.level, level, found)

    def test_unix_sockets(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        listener = ListenerConfig(name="a", address=str(directory / "a"), bind_port=True, network="unix")
        self.assertEqual([each.level for each in port(listener)], [OK])
        self.assertEqual(os.listdir(directory), [])
        absent = listener.model_copy(update={"address": str(directory / "b" / "a")})
        self.assertEqual([each.level for each in port(absent)], [FAIL])
