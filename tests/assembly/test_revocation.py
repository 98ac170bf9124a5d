"""Tests for the revocation of agents that have joined and would not be admitted any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.assembly import listeners
from reverseproxy.interfaces import IConnectionValidator, Identity
from reverseproxy.metrics.counts import leave_reason
from tests.assembly.test_running import GET, Sites
from tests.certs import Certificates
from tests.config.documents import AGENT, CLUSTER, GONE, TUNNEL_SERVER, edited
from tests.tunnel.logged import capture

TUNNEL = "servers[0].listeners[1].filter_chains[0]"
FILTER = f"{TUNNEL}.filters[0].config"
ENOUGH = 4.5
"""Seconds in which everything has to be over."""


class RevocationCase(SynchronousTestCase):
    """Two agents, "keeper" and "loser"; the second one is to go."""

    sites: Sites

    def hosts(self) -> dict[str, Any]:
        """The hosts that may be picked, by what their agents call themselves."""
        clusters = self.sites.apps["server"].clusters
        return {host.hostname: host for cluster in clusters for host in cluster.hosts.values()}

    def assertGone(self, begin: Any = lambda: None) -> str:
        """After something has been done, the loser goes, and the keeper keeps its connection."""
        before = self.hosts()
        self.assertEqual(set(before), {"keeper", "loser"})
        with capture() as events:
            begin()
            self.sites.advance(ENOUGH)
        self.assertTrue(before["loser"].closed)
        self.assertNotIn("loser", self.hosts())
        self.assertIs(self.hosts()["keeper"], before["keeper"])
        self.assertFalse(before["keeper"].closed)
        return events.text()


class TokenTests(RevocationCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.entries: list[dict[str, Any]] = [
            {"agent": name, "token": f"token of {name}"} for name in ("keeper", "loser")
        ]
        self.write()
        config = {"credential_policy": "static", "validators": {"static": {"file": str(self.file)}}}
        agents = [
            {
                "type": "tunnel_agent",
                "config": {
                    **AGENT["extends"][0]["config"],
                    "host_name": name,
                    "credential_policy": "static",
                    "credential_config": {"token": f"token of {name}"},
                },
            }
            for name in ("keeper", "loser")
        ]
        self.sites = Sites(self, edited(TUNNEL_SERVER, (FILTER, config)), edited(AGENT, ("extends", agents)))

    def write(self) -> None:
        other = self.file.with_name(f"{self.file.name}.new")
        other.write_text(json.dumps(self.entries))
        other.rename(self.file)

    def test_a_token_that_is_taken_out(self) -> None:
        def take_out() -> None:
            del self.entries[1]
            self.write()

        text = self.assertGone(take_out)
        self.assertIn("is revoked, and closed within 2.5 s", text)
        self.assertIn("rejected its credential", text)

    def test_how_it_is_counted(self) -> None:
        reasons: list[str] = []

        def note(kind: str, host: Any, reason: str) -> None:
            if kind == "leave":
                reasons.append(leave_reason(reason))

        [cluster] = self.sites.apps["server"].clusters
        cluster.on_change = note
        del self.entries[1]
        self.write()
        self.sites.advance(ENOUGH)
        self.assertEqual(reasons, ["revoked"])

    def test_fewer_clusters(self) -> None:
        def narrow() -> None:
            self.entries[1]["clusters"] = ["other"]
            self.write()

        self.assertIn("may not join cluster 'edge'", self.assertGone(narrow))

    def test_a_token_of_somebody_else(self) -> None:
        def rename() -> None:
            self.entries[1]["agent"] = "somebody"
            self.write()

        before = self.hosts()
        rename()
        self.sites.advance(ENOUGH)
        self.assertTrue(before["loser"].closed)
        self.assertEqual(self.hosts()["loser"].identity.name, "somebody")

    def test_another_weight(self) -> None:
        """That is no reason to go."""
        before = self.hosts()
        self.entries[1]["max_weight"] = 3
        self.write()
        self.sites.advance(ENOUGH)
        self.assertIs(self.hosts()["loser"], before["loser"])
        self.assertEqual(before["loser"].weight, 3)

    def test_a_file_that_can_t_be_used(self) -> None:
        before = self.hosts()
        self.file.write_text("[")
        self.sites.advance(ENOUGH)
        self.file.unlink()
        self.sites.advance(ENOUGH)
        self.assertEqual(self.hosts(), before)

    def begin(self) -> tuple[Any, Any, Any]:
        """A request that goes through the loser: its client, its service, and the loser."""
        before = self.hosts()
        self.sites.apps["server"].clusters.get("edge").set_health(before["keeper"], False)
        self.sites.service.answers = False
        client = self.sites.client()
        client.transport.write(GET)
        self.sites.advance(0.1)
        del self.entries[1]
        self.write()
        self.sites.advance(1.2)
        self.assertTrue(before["loser"].retired)
        self.assertFalse(before["loser"].closed)
        return client, self.sites.service.connections[-1], before["loser"]

    def test_what_is_under_way(self) -> None:
        """It is finished, if that does not take long."""
        client, service, loser = self.begin()
        service.answer()
        self.sites.advance(0.2)
        self.assertIn(b"first", client.data)
        self.sites.advance(3)
        self.assertTrue(loser.closed)

    def test_what_takes_too_long(self) -> None:
        client, _, loser = self.begin()
        self.sites.advance(3)
        self.assertTrue(loser.closed)
        self.sites.advance(20)
        self.assertIn(b"HTTP/1.1 50", client.data)

    def test_one_that_is_about_to_join(self) -> None:
        """Its token was good when it was looked at, and is not any more when it is its turn."""
        self.sites.stop()
        server = edited(
            self.sites.documents["server"], (f"{FILTER}.max_joins_per_second", 1), (f"{CLUSTER}.name", "edge")
        )
        self.sites = Sites(self, server, self.sites.documents["agent"])
        [first] = self.hosts()
        late = {"keeper": "loser", "loser": "keeper"}[first]
        self.entries = [entry for entry in self.entries if entry["agent"] != late]
        self.write()
        self.sites.advance(ENOUGH)
        self.assertEqual(list(self.hosts()), [first])

    def test_tokens_in_the_configuration(self) -> None:
        def reload() -> None:
            tokens = {"tokens": self.entries[:1]}
            self.assertTrue(
                self.sites.change("server", (f"{FILTER}.validators", {"static": tokens})).successful
            )

        self.assertGone(reload)

    def test_a_policy_that_is_demanded(self) -> None:
        """Agents that have shown no credential have to."""
        sites = self.sites = Sites(self)
        [before] = self.hosts().values()
        config = {"credential_policy": "static", "validators": {"static": {"file": str(self.file)}}}
        sites.change("server", (FILTER, config))
        sites.advance(ENOUGH)
        self.assertTrue(before.closed)
        self.assertEqual(self.hosts(), {})

    def test_a_cluster_that_is_gone(self) -> None:
        [before, _] = self.hosts().values()
        self.sites.change("server", (f"{CLUSTER}.name", "other"))
        self.sites.advance(ENOUGH)
        self.assertTrue(before.closed)
        self.assertEqual(self.hosts(), {})
        self.sites.change("server", (f"{CLUSTER}.name", "edge"))
        self.sites.advance(60)
        self.assertEqual(set(self.hosts()), {"keeper", "loser"})

    def test_a_listener_that_is_gone(self) -> None:
        before = self.hosts().values()
        self.sites.change("server", ("servers[0].listeners[1]", GONE))
        self.sites.advance(ENOUGH)
        self.assertEqual([host.closed for host in before], [True, True])


@implementer(IConnectionValidator)
class Plugged:
    """A validator that can't say what has changed."""

    good = True

    def validate(self, credential: str, host_name: str, cluster_name: str) -> Any:
        verdict: Deferred[Identity | None] = Deferred()
        verdict.callback(Identity(host_name) if self.good or host_name == "keeper" else None)
        return verdict


class PluginTests(RevocationCase):
    def test_with_another_configuration(self) -> None:
        """It is asked again when its options are others, and not whenever something else changes."""
        plugin = Plugged()
        self.patch(listeners, "find_validator", lambda policy, config: plugin)
        agents = [
            {
                "type": "tunnel_agent",
                "config": {
                    **AGENT["extends"][0]["config"],
                    "host_name": name,
                    "credential_policy": "test",
                },
            }
            for name in ("keeper", "loser")
        ]
        config = {"credential_policy": "test"}
        self.sites = Sites(self, edited(TUNNEL_SERVER, (FILTER, config)), edited(AGENT, ("extends", agents)))
        before = self.hosts()
        plugin.good = False
        self.sites.change("server", (f"{CLUSTER}.lb_type", "LB_ROUNDROBIN"))
        self.sites.advance(ENOUGH)
        self.assertEqual(self.hosts(), before)
        self.assertGone(
            lambda: self.sites.change("server", (f"{FILTER}.validators", {"test": {"any": "thing"}}))
        )


class CertificateTests(RevocationCase):
    def setUp(self) -> None:
        self.certs = Certificates(self.mktemp())
        self.loser = self.certs.issue("loser", "loser.example.com", common_name="loser")
        self.demanding = {
            "status": True,
            **self.certs.server.options,
            "ca_cert": self.certs.ca,
            "verify_client": True,
            "require_client_cert": True,
        }

    def start(self, context: dict[str, Any]) -> None:
        agents = [
            {
                "type": "tunnel_agent",
                "config": {
                    **AGENT["extends"][0]["config"],
                    "host_name": name,
                    "tls_context": {"status": True, "ca_cert": self.certs.ca, **pair.options},
                },
            }
            for name, pair in (("keeper", self.certs.client), ("loser", self.loser))
        ]
        server = edited(TUNNEL_SERVER, (f"{TUNNEL}.tls_context", context))
        self.sites = Sites(self, server, edited(AGENT, ("extends", agents)))

    def test_a_certificate_on_a_new_list(self) -> None:
        self.start({**self.demanding, "crl": self.certs.revoke()})
        self.assertIn(
            "its certificate is not good any more", self.assertGone(lambda: self.certs.revoke(self.loser))
        )

    def test_a_list_where_there_was_none(self) -> None:
        self.start(self.demanding)
        crl = self.certs.revoke(self.loser)
        self.assertGone(lambda: self.sites.change("server", (f"{TUNNEL}.tls_context.crl", crl)))

    def test_another_authority(self) -> None:
        self.loser = self.certs.issue("loser", "loser.example.com", by=self.certs.other_authority)
        both = Path(self.certs.ca).with_name("both.pem")
        both.write_bytes(Path(self.certs.ca).read_bytes() + Path(self.certs.wrong_ca).read_bytes())
        self.start({**self.demanding, "ca_cert": str(both)})
        self.assertGone(lambda: both.write_bytes(Path(self.certs.ca).read_bytes()))

    def test_a_certificate_of_ours_is_renewed(self) -> None:
        self.start(self.demanding)
        before = self.hosts()
        self.certs.issue("server", "127.0.0.1")
        self.sites.advance(ENOUGH)
        self.assertEqual(self.hosts(), before)

    def test_tls_where_there_was_none(self) -> None:
        sites = self.sites = Sites(self)
        [before] = self.hosts().values()
        sites.change("server", (f"{TUNNEL}.tls_context", self.demanding))
        sites.advance(ENOUGH)
        self.assertTrue(before.closed)
        self.assertEqual(self.hosts(), {})

    def test_certificates_that_were_not_demanded(self) -> None:
        """Who has shown none has to go."""
        self.start({"status": True, **self.certs.server.options})
        before = self.hosts()
        self.assertEqual(set(before), {"keeper", "loser"})
        self.sites.change("server", (f"{TUNNEL}.tls_context", self.demanding))
        self.sites.advance(ENOUGH)
        self.assertTrue(all(host.closed for host in before.values()))
        self.sites.advance(10)
        self.assertEqual(set(self.hosts()), {"keeper", "loser"})
