"""Tests for L{reverseproxy.command.doctor}."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.trial.unittest import TestCase

from reverseproxy.command import doctor
from reverseproxy.command.doctor import Examination, examine
from reverseproxy.command.system_checks import FAIL, OK, WARN, Finding
from tests.certs import Certificates
from tests.config.documents import AGENT, edited

_reactor: Any = reactor


class Greeting(Protocol):
    """Says what no TLS client expects."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"220 here is no TLS\r\n")


class DoctorTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def listen(self, protocol: type[Protocol] = Protocol, tls: Any = None) -> int:
        factory = Factory.forProtocol(protocol)
        if tls is None:
            listening = _reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            listening = _reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        return int(listening.getHost().port)

    def refusing(self) -> int:
        """A port that nobody listens at, nor will be given."""
        holder = socket.socket()
        holder.bind(("127.0.0.1", 0))
        self.addCleanup(holder.close)
        return int(holder.getsockname()[1])

    async def examine(
        self, document: Any, names: dict[str, list[str]] | None = None
    ) -> tuple[bool, dict[str, list[Finding]]]:
        """What is found, by what it is about."""
        file = self.directory / "config.json"
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        found: dict[str, list[Finding]] = {}

        def tell(finding: Finding) -> None:
            found.setdefault(finding.what, []).append(finding)

        def resolve(name: str) -> Deferred[list[str]]:
            if name not in (names or {}):
                return fail(socket.gaierror(-2, "Name or service not known"))
            return succeed((names or {})[name])

        examination = Examination(str(file), _reactor, tell, None if names is None else resolve)
        return await examination.run(), found

    def agent(self, server: str, host: str, **more: Any) -> Any:
        changes = [(f"extends[0].config.{key}", value) for key, value in more.items()]
        hosts = ("cluster_manager.clusters[0].hosts", [{"address": host}])
        return edited(AGENT, ("extends[0].config.server_list", [server]), hosts, *changes)

    async def test_all_is_well(self) -> None:
        number = self.listen()
        well, found = await self.examine(self.agent(f"127.0.0.1:{number}", f"127.0.0.1:{number}"))
        self.assertTrue(well, found)
        for what in ("tunnel server of cluster edge", "host of cluster service"):
            (finding,) = found[what]
            self.assertRegex(finding.detail, rf"^127\.0\.0\.1:{number} reached in \d+ ms$")
        for what in ("versions", "descriptors", "clock", "configuration"):
            self.assertIn(what, found)

    async def test_refused(self) -> None:
        number = self.refusing()
        well, found = await self.examine(self.agent(f"127.0.0.1:{number}", f"127.0.0.1:{number}"))
        self.assertFalse(well)
        (server,), (host,) = found["tunnel server of cluster edge"], found["host of cluster service"]
        self.assertIn("refuses connections", server.detail)
        self.assertIn("start the tunnel server", server.remedy)
        self.assertIn("start the service", host.remedy)

    async def test_names(self) -> None:
        number = self.listen()
        document = self.agent(f"tunnels.example:{number}", f"nowhere.example:{number}")
        names = {"tunnels.example": ["127.0.0.1", "::1"]}
        well, found = await self.examine(document, names)
        self.assertFalse(well)
        reached, other = found["tunnel server of cluster edge"]
        self.assertEqual((reached.level, other.level), (OK, WARN))
        self.assertIn("(127.0.0.1) reached", reached.detail)
        (host,) = found["host of cluster service"]
        self.assertIn("nowhere.example has no address: Name or service not known", host.detail)

    async def test_names_of_the_system(self) -> None:
        number = self.listen()
        document = self.agent(f"127.0.0.1:{number}", f"localhost:{number}")
        _, found = await self.examine(document)
        self.assertIn(OK, [finding.level for finding in found["host of cluster service"]])

    async def test_silence(self) -> None:
        """A handshake that nobody answers."""
        self.patch(doctor, "TIMEOUT", 0.05)
        number = self.listen()
        tls = {"status": True, "ca_cert": Certificates(self.directory).ca}
        document = self.agent(f"127.0.0.1:{number}", f"127.0.0.1:{number}", tls_context=tls)
        _, found = await self.examine(document)
        (server,) = found["tunnel server of cluster edge"]
        self.assertIn("does not answer within 0.05 s", server.detail)
        self.assertIn("firewall", server.remedy)

    async def test_tls(self) -> None:
        certificates = Certificates(self.directory)
        context = DefaultOpenSSLContextFactory(certificates.server.key, certificates.server.chain)
        secure, plain = self.listen(tls=context), self.listen(Greeting)
        for number, more, level, detail, remedy in (
            (secure, {"ca_cert": certificates.ca}, OK, "its certificate is good", ""),
            (
                secure,
                {"ca_cert": certificates.wrong_ca},
                FAIL,
                "shows a certificate that is refused",
                "ca_cert",
            ),
            (
                secure,
                {"ca_cert": certificates.ca, "server_name": "other.example"},
                FAIL,
                "shows a certificate that is refused",
                "server_name",
            ),
            (secure, {"insecure_skip": True}, OK, "its certificate is not looked at", ""),
            (plain, {"ca_cert": certificates.ca}, FAIL, "can't agree on TLS", "speaks TLS at all"),
        ):
            tls = {"status": True, **more}
            server = f"127.0.0.1:{number}"
            _, found = await self.examine(self.agent(server, f"127.0.0.1:{plain}", tls_context=tls))
            (finding,) = found["tunnel server of cluster edge"]
            self.assertEqual(finding.level, level, finding)
            self.assertIn(detail, finding.detail)
            self.assertIn(remedy, finding.remedy)

    async def test_etcd(self) -> None:
        """Each of its endpoints is tried."""
        document = {
            "servers": [{"listeners": []}],
            "fleet": {
                "server_id": "a",
                "etcd": {"endpoints": [f"127.0.0.1:{self.listen()}", f"127.0.0.1:{self.refusing()}"]},
                "peers": {"address": "127.0.0.1:0"},
            },
        }
        well, found = await self.examine(document)
        self.assertFalse(well)
        findings = found["etcd of the fleet"]
        self.assertEqual(sorted(finding.level for finding in findings), sorted([OK, FAIL]))
        self.assertIn("fleet.etcd.endpoints", " ".join(finding.remedy for finding in findings))

    async def test_unix_socket(self) -> None:
        path = f"{self.directory}/s"
        number = self.listen()
        _, found = await self.examine(self.agent(f"127.0.0.1:{number}", f"unix:{path}"))
        self.assertEqual([finding.level for finding in found["host of cluster service"]], [FAIL])

    async def test_missing_credential(self) -> None:
        number = self.listen()
        address = f"127.0.0.1:{number}"
        credential = {"file": str(self.directory / "absent.token")}
        document = self.agent(address, address, credential_policy="static", credential_config=credential)
        well, found = await self.examine(document)
        self.assertFalse(well)
        self.assertIn("absent.token", found["credential"][0].detail)

    async def test_wrong_configuration(self) -> None:
        well, found = await self.examine("{'a': 1}")
        self.assertFalse(well)
        self.assertIn("double quotation marks", found["configuration"][0].detail)

    async def test_unreadable_configuration(self) -> None:
        for path, reason in (("absent.json", "No such file"), (str(self.directory), "Is a directory")):
            told: list[Finding] = []
            self.assertFalse(await examine(path, _reactor, told.append))
            detail, _ = (each.detail for each in told if each.what == "configuration")
            self.assertIn(f"{path}: can't be read: {reason}", detail)
