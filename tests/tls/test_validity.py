"""Tests for L{reverseproxy.tls.validity}, and for what contexts make of dates and of revocation lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import ConfigError
from reverseproxy.tls import CertificateReloader, ClientTls, ServerTls
from reverseproxy.tls.validity import DAY, Dated, Expiry, of_certificate
from tests.certs import KeyPair
from tests.tls.memory import TlsPair
from tests.tls.test_contexts import ContextTestCase, message_of

BEGIN = 1_000 * DAY
END = 2_000 * DAY


class ExpiryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.item = Dated("cert_chain", "the certificate of a", BEGIN, END, (30, 7, 1))
        self.expiry = Expiry((self.item,))

    def told(self, *moments: float) -> list[bool | None]:
        """Whether something was said at each moment, and whether it was urgent."""
        said = [self.expiry.due(moment) for moment in moments]
        return [each[0][1] if each else None for each in said]

    def test_days_ahead(self) -> None:
        ahead = [31, 30, 29, 8, 7, 6.9, 2, 1, 0.9, 0.1]
        told = self.told(*(END - days * DAY for days in ahead))
        self.assertEqual([days for days, said in zip(ahead, told, strict=True) if said is False], [30, 7, 1])
        self.assertNotIn(True, told)

    def test_daily_after(self) -> None:
        told = self.told(*(END + hours * 3600.0 for hours in range(0, 73, 6)))
        self.assertEqual([index * 6 for index, said in enumerate(told) if said], [0, 24, 48, 72])
        self.assertNotIn(False, told)

    def test_only_the_latest_stage_is_told(self) -> None:
        self.assertEqual(self.told(END - 0.5 * DAY, END - 0.4 * DAY), [False, None])

    def test_not_yet_valid(self) -> None:
        told = self.told(BEGIN - DAY, BEGIN - DAY + 60, BEGIN, END - 30 * DAY)
        self.assertEqual(told, [True, None, None, False])

    def test_valid_from_the_first_second_and_not_in_the_last(self) -> None:
        moments = (BEGIN - 1, BEGIN, END - 1, END)
        self.assertEqual([self.item.is_valid(moment) for moment in moments], [False, True, True, False])

    def test_no_end(self) -> None:
        endless = Expiry((Dated("crl", "the revocation list of a", 0.0, inf, (1,)),))
        self.assertEqual(endless.due(END * 1000), [])

    def test_texts(self) -> None:
        self.assertEqual(
            [
                self.item.text(moment)
                for moment in (BEGIN - 1, END - 30 * DAY, END - 0.5 * DAY, END + 3 * DAY)
            ],
            [
                "the certificate of a is not valid before 1972-09-27 00:00 UTC: replace it, or set the clock",
                "the certificate of a expires in 30 days, on 1975-06-24 00:00 UTC",
                "the certificate of a expires in 12 hours, on 1975-06-24 00:00 UTC",
                "the certificate of a expired on 1975-06-24 00:00 UTC: replace it",
            ],
        )

    def test_names(self) -> None:
        leaf = trustme.CA().issue_cert("a.example", common_name="a.example")
        certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        self.assertIn("CN=a.example", of_certificate(certificate, "cert_chain").name)


class DatesOfContextsTests(ContextTestCase):
    """What is about to expire is told of, and nothing valid is given up for what is not."""

    def issue(self, begins: float = -1.0, ends: float = 365.0, by: trustme.CA | None = None) -> KeyPair:
        """
        Issue a certificate for a server, in the same files each time.

        @param begins: days from now, as is C{ends}.
        """
        now = datetime.now(UTC)
        return self.certs.issue(
            "dated",
            "localhost",
            by=by,
            not_before=now + timedelta(days=begins),
            not_after=now + timedelta(days=ends),
        )

    def watch(self, context: Any) -> CertificateReloader:
        return CertificateReloader(Clock(), [context])

    def poll(self, reloader: CertificateReloader) -> list[tuple[LogLevel, str]]:
        """Look once: what was logged."""
        with capturedLogs() as events:
            reloader.poll()
        return [(event["log_level"], formatEvent(event)) for event in events]

    def texts(self, context: ServerTls | ClientTls) -> list[tuple[str, bool]]:
        return [(str(problem), urgent) for problem, urgent in context.expiring()]

    def test_far_from_its_end(self) -> None:
        self.assertEqual(self.texts(self.server(**self.issue().options)), [])

    def test_soon(self) -> None:
        pair = self.issue(ends=5)
        both: Sequence[ServerTls | ClientTls] = (self.server(**pair.options), self.client(**pair.options))
        for context in both:
            [(text, urgent)] = self.texts(context)
            self.assertRegex(text, r"^tls_context\.cert_chain: the certificate of .* expires in 5 days, on 2")
            self.assertFalse(urgent)
            self.assertEqual(self.texts(context), [])

    def test_authority(self) -> None:
        authority = trustme.CA(organization_name="Ending")
        certificate = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
        client = self.client(ca_cert=self.certs.ca)
        client._context._wall = lambda: certificate.not_valid_after_utc.timestamp() - 1.5 * DAY
        [(text, _)] = self.texts(client)
        self.assertIn("tls_context.ca_cert: the certificate of", text)

    def test_expired_at_the_start(self) -> None:
        [(text, urgent)] = self.texts(self.server(**self.issue(-9, -2).options))
        self.assertIn("expired on 2", text)
        self.assertTrue(urgent)

    def test_it_happens(self) -> None:
        now = time.time()
        server = ServerTls([self.certs.server_context(**self.issue(ends=9).options)], wall=lambda: now)
        reloader = self.watch(server)
        levels = []
        for days in (0, 2, 2, 4.5, 1, 1, 1):
            now += days * DAY
            levels.append([level for level, _ in self.poll(reloader)])
        warn, error = [LogLevel.warn], [LogLevel.error]
        # with 9, 7, 5 and half a day left, then half a day after the end, and so on
        self.assertEqual(levels, [warn, warn, [], warn, error, error, error])

    def test_an_expired_one_does_not_replace_a_valid_one(self) -> None:
        server = self.server(**self.issue().options)
        reloader = self.watch(server)
        before = server.select("", ())
        self.issue(-9, -2)
        [(level, text)] = self.poll(reloader)
        self.assertIs(server.select("", ()), before)
        self.assertIs(level, LogLevel.warn)
        self.assertRegex(
            text, "the old certificates stay: tls_context.cert_chain: cert_chain .* expired on 2"
        )
        self.assertEqual(self.poll(reloader), [], "said once")
        self.issue()
        self.poll(reloader)
        self.assertIsNot(server.select("", ()), before)

    def test_one_of_tomorrow_is_taken_tomorrow(self) -> None:
        now = time.time()
        server = ServerTls([self.certs.server_context(**self.issue().options)], wall=lambda: now)
        reloader = self.watch(server)
        before = server.select("", ())
        self.issue(begins=1)
        [(_, text)] = self.poll(reloader)
        self.assertIn("is not valid before 2", text)
        self.assertIs(server.select("", ()), before)
        now += 1.1 * DAY
        self.poll(reloader)
        self.assertIsNot(server.select("", ()), before)

    def test_expired_for_expired(self) -> None:
        server = self.server(**self.issue(-9, -2).options)
        before = server.select("", ())
        self.issue(-9, -1)
        self.poll(self.watch(server))
        self.assertIsNot(server.select("", ()), before, "what there is now is no better")

    def test_a_client_s(self) -> None:
        client = self.client(**self.issue().options)
        self.issue(-9, -2)
        self.assertFalse(client.reload_if_changed())

    def test_one_of_several_authorities_has_expired(self) -> None:
        context = self.client()._context
        good = Dated("ca_cert", "good", 0.0, inf, (30,))
        bad = Dated("ca_cert", "bad", 0.0, 1.0, (30,))
        for new, objection in (((good, bad), 0), ((bad,), 1)):
            context._expiry = Expiry((good,))
            objections: list[str] = []

            class KeyMaterial:
                def report(self, key: str, message: str) -> None:
                    objections.append(message)  # noqa: B023

            context._compare_dates(KeyMaterial(), new)  # type: ignore[arg-type]
            self.assertEqual(len(objections), objection)


class RevocationTests(ContextTestCase):
    """Certificates that their authority has revoked."""

    def demanding(self, crl: str, **more: Any) -> ServerTls:
        return self.server(
            ca_cert=self.certs.ca, verify_client=True, require_client_cert=True, crl=crl, **more
        )

    def test_a_client_s(self) -> None:
        other = self.certs.issue("other", "agent-2.example.com")
        server = self.demanding(self.certs.revoke(self.certs.client))
        self.connect(self.client(**other.options), server)
        pair = self.refused(self.client(**self.certs.client.options), server)
        self.assertIn("cert revoked", message_of(pair.far))

    def test_a_server_s(self) -> None:
        client = self.client(crl=self.certs.revoke(self.certs.server))
        pair = TlsPair(client, self.server())
        self.assertIn("cert revoked", message_of(pair.near))

    def test_pem_text(self) -> None:
        text = Path(self.certs.revoke(self.certs.client)).read_text()
        self.refused(self.client(**self.certs.client.options), self.demanding(text))

    def test_a_new_list(self) -> None:
        server = self.demanding(self.certs.revoke())
        self.connect(self.client(**self.certs.client.options), server)
        self.certs.revoke(self.certs.client)
        self.assertTrue(server.reload_if_changed())
        self.refused(self.client(**self.certs.client.options), server)

    def test_intermediate(self) -> None:
        """The authority between has been revoked by the one above it."""
        between = self.certs.authority.create_child_ca()
        pair = self.certs.issue("below", "agent-3.example.com", by=between)
        authority = KeyPair(self.certs._write("between.pem", between.cert_pem.bytes()), "")
        below = Path(self.certs.revoke(by=between)).read_text()
        self.connect(
            self.client(**pair.options), self.demanding(below + Path(self.certs.revoke()).read_text())
        )
        revoked = Path(self.certs.revoke(authority)).read_text()
        self.refused(self.client(**pair.options), self.demanding(below + revoked))
        # An authority without a list vouches for nobody.
        self.refused(self.client(**pair.options), self.demanding(Path(self.certs.revoke()).read_text()))

    def test_out_of_date(self) -> None:
        path = self.certs.revoke(days=-1)
        server = self.demanding(path)
        [(problem, urgent)] = server.expiring()
        self.assertRegex(str(problem), r"tls_context\.crl: the revocation list of .* expired on")
        self.assertTrue(urgent)
        pair = self.refused(self.client(**self.certs.client.options), server)
        self.assertIn("crl has expired", message_of(pair.far))

    def test_one_that_is_out_of_date_does_not_replace_another(self) -> None:
        server = self.demanding(self.certs.revoke())
        self.certs.revoke(days=-1)
        self.assertFalse(server.reload_if_changed())

    def test_useless(self) -> None:
        crl = self.certs.revoke()
        for make, words in (
            (lambda: self.server(crl=crl), "unless peers are verified"),
            (lambda: self.client(crl=crl, insecure_skip=True), "unless peers are verified"),
            (lambda: self.demanding(self.certs.ca), "no revocation list in it"),
            (lambda: self.demanding("/nowhere/crl.pem"), "can't be read: No such file"),
            (
                lambda: self.demanding("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
                "a revocation list in it can't be read",
            ),
        ):
            with self.assertRaises(ConfigError) as raised:
                make()
            self.assert_problem(raised.exception, "tls_context.crl", words)
