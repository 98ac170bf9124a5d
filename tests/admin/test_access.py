"""Tests for L{reverseproxy.admin.access}."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin.access import Access, Role, parse_tokens
from reverseproxy.config.models import (
    AdminAddressConfig,
    AdminCertificateConfig,
    AdminConfig,
    PipeConfig,
    SocketAddressConfig,
)
from reverseproxy.identity import CertificateSubject
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.problems import Place
from tests.tunnel.logged import capture

READ, OPERATE = "r" * 16, "o" * 16
TOKENS = [{"name": "grafana", "token": READ}, {"name": "ops", "token": OPERATE, "role": "operate"}]
INFO = ConnectionInfo("127.0.0.1:1", "127.0.0.1:2")
LOOPBACK = AdminAddressConfig(socket_address=SocketAddressConfig(port_value=1))


class AccessTests(SynchronousTestCase):
    def judge(self, access: Access, token: str = "", info: ConnectionInfo = INFO) -> tuple[str, Role]:
        caller = access.judge(info, f"Bearer {token}" if token else "")
        return caller.name, caller.role

    def file(self, document: Any = TOKENS) -> str:
        path = self.mktemp() + ".json"
        Path(path).write_text(json.dumps(document))
        return path

    def test_this_machine(self) -> None:
        access = Access(AdminConfig(address=LOOPBACK))
        self.assertEqual(self.judge(access), ("(this machine)", Role.READ))
        # Where there are no tokens, none is wrong: Prometheus may be configured for all its targets alike.
        self.assertEqual(self.judge(access, OPERATE), ("(this machine)", Role.READ))

    def test_unix_socket(self) -> None:
        pipe = AdminAddressConfig(pipe=PipeConfig(path="/x"))
        self.assertEqual(self.judge(Access(AdminConfig(address=pipe)))[1], Role.OPERATE)
        tokens = Access(AdminConfig(address=pipe, tokens_file=self.file()))
        self.assertEqual(self.judge(tokens)[1], Role.NOBODY)

    def test_tokens(self) -> None:
        access = Access(AdminConfig(address=LOOPBACK, tokens_file=self.file()))
        self.assertEqual(self.judge(access), ("", Role.NOBODY))
        self.assertEqual(self.judge(access, READ), ("grafana", Role.READ))
        self.assertEqual(self.judge(access, OPERATE), ("ops", Role.OPERATE))
        self.assertEqual(self.judge(access, "x" * 16), ("", Role.NOBODY))
        self.assertEqual(self.judge(access, "\udcff" * 16), ("", Role.NOBODY))
        self.assertEqual(access.judge(INFO, f"Basic {READ}").role, Role.NOBODY)
        self.assertEqual(access.judge(INFO, f"bearer  {READ}").role, Role.READ)

    def test_a_file_that_changes(self) -> None:
        path = self.file()
        access = Access(AdminConfig(address=LOOPBACK, tokens_file=path))
        Path(path).write_text(json.dumps(TOKENS[:1]))
        with capture() as events:
            self.assertEqual(self.judge(access, OPERATE)[1], Role.NOBODY)
        self.assertIn("has changed and is in use", events.text())
        Path(path).write_text("{")
        with capture() as events:
            self.assertEqual(self.judge(access, READ)[1], Role.READ)
        self.assertIn("has changed but can't be used", events.text())
        os.remove(path)
        with capture():
            self.assertEqual(self.judge(access, READ)[1], Role.READ)

    def test_files_that_can_t_be_used(self) -> None:
        with self.assertRaisesRegex(ValueError, "can't read .*nowhere: No such file"):
            Access(AdminConfig(address=LOOPBACK, tokens_file="nowhere"))
        secret = "s" * 15
        for document, expected in (
            ({}, "expected a list"),
            ([1], r"t: \[0\]: must be a mapping"),
            ([{"name": "a", "token": secret}], "16 ASCII characters"),
            ([{"name": "", "token": READ}], r"\[0\].name: must be a text"),
            (
                [{"name": "a", "token": READ, "role": "root"}],
                r"\[0\].role: must be read or operate, not the text .root.",
            ),
            (
                [{"name": "a", "token": READ}, {"name": "b", "token": READ}],
                r"\[1\].token: is the same as at \[0\].token",
            ),
            (
                [{"name": "a", "token": READ, "rol": "read"}],
                r"\[0\].rol: unknown key; the keys are name, token, role",
            ),
            (
                [{"name": "a", "token": READ, "role": ["read"]}],
                r"\[0\].role: must be read or operate, not a list",
            ),
            (
                [{"name": "a", "token": READ, "role": {}}],
                r"\[0\].role: must be read or operate, not an object",
            ),
            ({"tokens": [1], "more": 1}, r"t: more: unknown key.*\nt: tokens\[0\]: must be a mapping"),
        ):
            with self.assertRaisesRegex(ValueError, expected) as caught:
                parse_tokens(document, Place("t"))
            self.assertNotIn(secret, str(caught.exception))

    def test_certificates(self) -> None:
        access = Access(
            AdminConfig(
                address=LOOPBACK,
                certificates=(
                    AdminCertificateConfig(name="CN=ops", role="operate"),
                    AdminCertificateConfig(name="DNS:grafana.example"),
                ),
            )
        )

        def caller(subject: str, *names: str) -> tuple[str, Role]:
            found = CertificateSubject("x509:1", subject, names)
            return self.judge(
                access, info=ConnectionInfo("10.0.0.1:1", "10.0.0.2:2", True, "x509:1", subject=found)
            )

        self.assertEqual(caller("CN=ops"), ("CN=ops", Role.OPERATE))
        self.assertEqual(caller("CN=x", "DNS:grafana.example")[1], Role.READ)
        self.assertEqual(caller("CN=ops2", "DNS:example")[1], Role.NOBODY)
        self.assertEqual(self.judge(access)[1], Role.NOBODY)
