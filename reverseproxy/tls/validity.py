"""The validity of certificates and revocation lists, and when to warn about their expiry."""

from __future__ import annotations

__all__ = ["Dated", "Expiry", "of_certificate", "of_revocation_list"]

from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Final

from cryptography import x509

DAY: Final = 86400.0
"""Seconds."""

CERTIFICATE_NOTICE: Final = (30, 7, 1)
"""Days before a certificate expires on which there is a warning."""

REVOCATION_LIST_NOTICE: Final = (1,)
"""The same for a revocation list, which is replaced each week or each day."""


@dataclass(frozen=True, slots=True)
class Dated:
    """
    Something with a validity: a certificate or a revocation list.

    @ivar key: the key of the C{tls_context} that it was read from.
    @ivar name: its name in messages.
    @ivar begins: seconds since 1970.
    @ivar ends: the same; C{inf} if it does not say.
    @ivar notice: days before it expires on which there is a warning, largest first.
    """

    key: str
    name: str
    begins: float
    ends: float
    notice: tuple[int, ...]

    def is_valid(self, now: float) -> bool:
        """Return whether it is valid at a time, in seconds since 1970."""
        return self.begins <= now < self.ends

    def stage(self, now: float) -> int:
        """
        Return how urgent its expiry is.

        0 is not at all; one more for each notice; then one more for each day after it has expired, and the
        same again if it is not valid yet.  Each higher stage is logged once.
        """
        if now < self.begins:
            return len(self.notice) + 1
        left = self.ends - now
        if left > 0:
            return sum(left <= days * DAY for days in self.notice)
        return len(self.notice) + 1 + int(-left // DAY)

    def text(self, now: float) -> str:
        """Return a sentence about its validity, with the dates."""
        if now < self.begins:
            return f"{self.name} is not valid before {_date(self.begins)}: replace it, or set the clock"
        if now >= self.ends:
            return f"{self.name} expired on {_date(self.ends)}: replace it"
        days = (self.ends - now) / DAY
        left = f"{days:.0f} days" if days >= 2 else f"{days * 24:.0f} hours"
        return f"{self.name} expires in {left}, on {_date(self.ends)}"


def of_certificate(certificate: x509.Certificate, key: str) -> Dated:
    """Return the validity of a certificate."""
    return Dated(
        key,
        f"the certificate of {_name(certificate)}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        CERTIFICATE_NOTICE,
    )


def of_revocation_list(revocations: x509.CertificateRevocationList, key: str) -> Dated:
    """Return the validity of a revocation list; after it, no certificate of its issuer is accepted."""
    until = revocations.next_update_utc
    return Dated(
        key,
        f"the revocation list of {_name(revocations)}",
        revocations.last_update_utc.timestamp(),
        inf if until is None else until.timestamp(),
        REVOCATION_LIST_NOTICE,
    )


class Expiry:
    """
    Finds what is about to expire, each item once for each stage.

    @ivar items: all items.
    """

    def __init__(self, items: tuple[Dated, ...]) -> None:
        self.items = items
        self._told = dict.fromkeys(items, 0)

    def due(self, now: float) -> list[tuple[Dated, bool]]:
        """
        Return the items that have reached another stage.

        @param now: seconds since 1970.
        @return: each with whether it is not valid now.
        """
        found = []
        for item, told in self._told.items():
            stage = item.stage(now)
            if stage > told:
                found.append((item, not item.is_valid(now)))
            # A clock that was set back, or has reached the beginning, starts anew.
            self._told[item] = stage
        return found

    def invalid(self, now: float) -> list[Dated]:
        """Return the items that are not valid at a time."""
        return [item for item in self.items if not item.is_valid(now)]


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _name(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    try:
        name = signed.subject if isinstance(signed, x509.Certificate) else signed.issuer
        return name.rfc4514_string() or "an empty name"
    except ValueError:
        return "an unreadable name"
