"""When certificates and revocation lists begin and cease to be valid, and when to say so."""

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
"""Days before the end of a certificate on which it is spoken of."""

REVOCATION_LIST_NOTICE: Final = (1,)
"""The same for a revocation list, which is replaced each week or each day."""


@dataclass(frozen=True, slots=True)
class Dated:
    """
    Something with a beginning and an end.

    @ivar key: the key of the C{tls_context} that it was read from.
    @ivar name: what people would call it.
    @ivar begins: seconds since 1970.
    @ivar ends: the same; C{inf} if it does not say.
    @ivar notice: the days before its end on which it is spoken of, most first.
    """

    key: str
    name: str
    begins: float
    ends: float
    notice: tuple[int, ...]

    def is_valid(self, now: float) -> bool:
        """Whether it is valid at a time, in seconds since 1970."""
        return self.begins <= now < self.ends

    def stage(self, now: float) -> int:
        """
        How urgent its end is.

        0 is not at all; one more for each notice; then one more each day after the end, and all of
        them again where it is not valid yet.  Each higher one is worth another line in the log.
        """
        if now < self.begins:
            return len(self.notice) + 1
        left = self.ends - now
        if left > 0:
            return sum(left <= days * DAY for days in self.notice)
        return len(self.notice) + 1 + int(-left // DAY)

    def text(self, now: float) -> str:
        """A sentence about it, with its dates."""
        if now < self.begins:
            return f"{self.name} is not valid before {_date(self.begins)}: replace it, or set the clock"
        if now >= self.ends:
            return f"{self.name} expired on {_date(self.ends)}: replace it"
        days = (self.ends - now) / DAY
        left = f"{days:.0f} days" if days >= 2 else f"{days * 24:.0f} hours"
        return f"{self.name} expires in {left}, on {_date(self.ends)}"


def of_certificate(certificate: x509.Certificate, key: str) -> Dated:
    """The validity of a certificate."""
    return Dated(
        key,
        f"the certificate of {_name(certificate)}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        CERTIFICATE_NOTICE,
    )


def of_revocation_list(revocations: x509.CertificateRevocationList, key: str) -> Dated:
    """The validity of a revocation list; once it is over, no certificate of its issuer is taken."""
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
    Tells of what is about to expire, each thing once for each stage of its end.

    @ivar items: what there is.
    """

    def __init__(self, items: tuple[Dated, ...]) -> None:
        self.items = items
        self._told = dict.fromkeys(items, 0)

    def due(self, now: float) -> list[tuple[Dated, bool]]:
        """
        What has to be said now, and has not been said.

        @param now: seconds since 1970.
        @return: each with whether it is urgent: not valid at present.
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
        """What is not valid at a time."""
        return [item for item in self.items if not item.is_valid(now)]


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _name(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    try:
        name = signed.subject if isinstance(signed, x509.Certificate) else signed.issuer
        return name.rfc4514_string() or "an empty name"
    except ValueError:
        return "an unreadable name"
