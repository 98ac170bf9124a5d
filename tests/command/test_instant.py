"""Tests for L{reverseproxy.command.instant}, and for what C{running} does with it."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command import running
from reverseproxy.command.certificates import SERVER_NAME, fetch_certificate, fingerprint_of, same_fingerprint
from reverseproxy.command.errors import InstantProblem
from reverseproxy.command.instant import Bring, ExposedService, PublishedService, server_configuration
from reverseproxy.command.state_directory import StateDirectory, state_directory
from reverseproxy.config.loader import load, loads


class InstantTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = StateDirectory(Path(self.mktemp()))
        self.ran: list[str] = []
        self.patch(running, "run_file", lambda file, options: self.ran.append(file))
        self.token = Path(self.mktemp())
        self.token.write_text("secret\n")
        self.token.chmod(0o600)
        self.patch(running.click, "echo", lambda text: None)

    def configuration(self, *services: PublishedService) -> Any:
        document = server_configuration(self.state, "0.0.0.0:9999", "127.0.0.1:8080", services)
        self.state.certificate()
        self.state.new_tokens(services)
        loaded = loads(json.dumps(document), "file")
        self.assertEqual(loaded.warnings, ())
        return loaded.config

    def exposed(self, **more: Any) -> ExposedService:
        values = {"name": "app1", "target": "127.0.0.1:80", "server": "127.0.0.1:1", "tcp": False}
        return ExposedService(**{**values, "token_file": str(self.token), **more})

    def test_services(self) -> None:
        self.assertEqual(PublishedService.http("a"), PublishedService("a", ("*",)))
        self.assertEqual(
            PublishedService.http("a=b.example, c.example"), PublishedService("a", ("b.example", "c.example"))
        )
        self.assertEqual(PublishedService.tcp("a=22"), PublishedService("a", address="127.0.0.1:22"))
        self.assertEqual(PublishedService.tcp("a=[::]:22"), PublishedService("a", address="[::]:22"))
        for text in ("", "=b", "a b", "../a", "a" * 64):
            self.assertRaises(InstantProblem, PublishedService.http, text)
        self.assertRaises(InstantProblem, PublishedService.tcp, "a")

    def test_server(self) -> None:
        services = (
            PublishedService.http("app1"),
            PublishedService.http("app2=a.example"),
            PublishedService.tcp("tunnels=22"),
        )
        config = self.configuration(*services)
        listeners = {each.name: each for each in config.server.listeners}
        self.assertEqual(sorted(listeners), ["http", "tcp-tunnels", "tunnels"])
        chain = listeners["tunnels"].filter_chain
        self.assertTrue(chain.tls_contexts)
        self.assertEqual(chain.filters[0].config.credential_policy, "static")
        for name in ("http", "tcp-tunnels"):
            self.assertTrue(listeners[name].address.startswith("127.0.0.1:"))

    def test_services_that_want_the_same(self) -> None:
        for services in (
            [],
            [PublishedService.http("a"), PublishedService.http("b")],
            [PublishedService.http("a=x.example"), PublishedService.tcp("a=22")],
            [PublishedService.tcp("a=22"), PublishedService.tcp("b=22")],
        ):
            self.assertRaises(InstantProblem, server_configuration, self.state, ":1", ":2", services)

    def test_tokens_are_made_once(self) -> None:
        first = self.state.new_tokens([PublishedService.http("a")])
        second = self.state.new_tokens([PublishedService.http("a"), PublishedService.http("b")])
        self.assertEqual((list(first), list(second)), (["a"], ["b"]))
        entries = json.loads((self.state.directory / "tokens.json").read_text())
        self.assertEqual(entries[0], {"agent": "a", "token": first["a"], "clusters": ["a"]})

    def test_the_certificate_is_made_once(self) -> None:
        certificate = self.state.certificate()
        self.assertEqual(StateDirectory(self.state.directory).certificate(), certificate)
        for path in self.state.directory.iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)
        self.assertEqual(stat.S_IMODE(self.state.directory.stat().st_mode), 0o700)

    def test_a_file_that_is_no_certificate(self) -> None:
        (self.state.directory / "server.pem").write_text("nothing")
        self.assertRaises(InstantProblem, self.state.certificate)

    def test_fingerprints(self) -> None:
        certificate = self.state.certificate()
        shown = fingerprint_of(certificate)
        plain = shown.removeprefix("sha256:").upper()
        colons = ":".join(plain[i : i + 2] for i in range(0, 64, 2))
        for right in (shown, plain, colons):
            self.assertTrue(same_fingerprint(certificate, right))
        for wrong in ("", "sha256:", shown[:-1], f"{shown}0", "ü"):
            self.assertFalse(same_fingerprint(certificate, wrong))

    def test_agent(self) -> None:
        ca = self.state.pin("app1", self.state.certificate())
        for tcp in (False, True):
            loaded = loads(json.dumps(self.exposed(tcp=tcp).configuration(ca, SERVER_NAME)), "file")
            self.assertEqual(loaded.warnings, ())
            (agent,) = loaded.config.agents
            self.assertEqual((agent.cluster, agent.tls_context.server_name), ("app1", SERVER_NAME))
            self.assertFalse(agent.tls_context.insecure_skip)
        self.assertRaises(InstantProblem, self.exposed, name="../a")

    def test_nothing_is_run_without_a_fingerprint(self) -> None:
        certificate = self.state.certificate()
        self.patch(running, "fetch_certificate", lambda server: certificate)
        directory = Path(self.mktemp())
        error = self.assertRaises(InstantProblem, running.expose, self.exposed(), directory, None, None)
        self.assertIn(fingerprint_of(certificate), str(error))
        error = self.assertRaises(
            InstantProblem, running.expose, self.exposed(), directory, "sha256:00", None
        )
        self.assertIn("somebody is in between", str(error))
        self.assertEqual((self.ran, list(directory.iterdir())), ([], []))

    def test_pinned_once(self) -> None:
        certificate = self.state.certificate()
        self.patch(running, "fetch_certificate", lambda server: certificate)
        directory = Path(self.mktemp())
        running.expose(self.exposed(), directory, fingerprint_of(certificate), None)

        def fetch(server: str) -> None:
            raise InstantProblem("asked again")

        self.patch(running, "fetch_certificate", fetch)
        running.expose(self.exposed(), directory, None, None)
        running.expose(self.exposed(), directory, fingerprint_of(certificate), None)
        self.assertRaises(InstantProblem, running.expose, self.exposed(), directory, "sha256:00", None)
        self.assertEqual(self.ran, [str(directory.absolute() / "app1-agent.json")] * 3)
        (agent,) = load(self.ran[0]).config.agents
        self.assertEqual(agent.tls_context.ca_cert, str(directory.absolute() / "app1-server.pem"))

    def test_authorities(self) -> None:
        directory = Path(self.mktemp())
        running.expose(self.exposed(), directory, None, "system")
        (agent,) = load(self.ran[0]).config.agents
        self.assertEqual((agent.tls_context.ca_cert, agent.tls_context.server_name), ("", ""))

    def test_servers_that_can_t_be_asked(self) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            self.assertRaises(InstantProblem, fetch_certificate, f"127.0.0.1:{holder.getsockname()[1]}")
        self.assertRaises(InstantProblem, fetch_certificate, "127.0.0.1:99999")

    def test_directory(self) -> None:
        self.assertEqual(state_directory().name, "reverseproxy")
        self.assertRaises(InstantProblem, StateDirectory, self.token / "below")

    def test_what_agents_bring(self) -> None:
        """A server without services gives out one token, for what agents bring alone."""
        bring = Bring("x.example", "2200-2299", "0.0.0.0")
        token = self.state.first_token(bring.zone, bring.ports)
        self.assertIsNotNone(token)
        self.assertIsNone(self.state.first_token(bring.zone, bring.ports))
        self.state.certificate()
        document = server_configuration(self.state, "0.0.0.0:9999", "127.0.0.1:8080", [], bring)
        loaded = loads(json.dumps(document), "file")
        self.assertEqual(loaded.warnings, ())
        (tunnels,) = [each for each in loaded.config.server.listeners if each.name == "tunnels"]
        routes = tunnels.filter_chain.filters[0].config.agent_routes
        self.assertEqual((routes.zone, routes.url), ("x.example", "http://{domain}:8080/"))
        self.assertEqual(Bring("a").configuration("127.0.0.1:80")["url"], "http://{domain}/")
        (entry,) = json.loads(Path(self.state.tokens).read_text())
        self.assertEqual(entry["clusters"], [])
        self.assertEqual((entry["domains"], entry["ports"]), (["*.x.example"], ["2200-2299"]))

    def test_what_is_asked_for(self) -> None:
        for more, routes in (
            ({}, {"subdomains": ["app1"]}),
            ({"domains": ("a.example",)}, {"domains": ["a.example"]}),
            ({"tcp": True}, {"port": 0}),
            ({"tcp": True, "port": 22}, {"port": 22}),
        ):
            document = self.exposed(**more).configuration("", "")
            self.assertEqual(document["extends"][0]["config"]["routes"], routes)
            self.assertEqual(loads(json.dumps(document), "file").warnings, ())
