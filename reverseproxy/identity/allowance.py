"""
The routes that an agent may bring: domains and ports; pure.

All code that parses domains or matches patterns uses this module: for requests of agents,
allowances of credentials, and claims that are in use.
"""

from __future__ import annotations

__all__ = ["NOTHING", "Allowance", "clean_domain", "parse_ports"]

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_DOMAIN: Final = 253
"""Characters of the longest domain."""

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def clean_domain(text: str) -> str:
    """
    Normalize a domain.

    @param text: a host name, or one with C{*.} before it, which stands for all names below.
    @raise ValueError: if it is neither.
    """
    domain = text.strip().lower().removesuffix(".")
    if len(domain) > MAX_DOMAIN or not _DOMAIN.fullmatch(domain):
        raise ValueError(f"{text[:80]!a} is no domain: write a host name, or *. and one")
    return domain


def parse_ports(text: str) -> tuple[int, int]:
    """
    Parse C{2222} or C{2200-2299}.

    @return: the first and the last port.
    @raise ValueError: if it is neither.
    """
    found = _PORTS.fullmatch(text.strip())
    if found is not None:
        first = int(found[1])
        last = int(found[2] or found[1])
        if 1 <= first <= last <= 65535:
            return first, last
    raise ValueError(f"{text[:80]!a} is no range of ports: write 2222 or 2200-2299")


@dataclass(frozen=True, slots=True)
class Allowance:
    """
    Domains and ports that an agent may bring.

    @ivar domains: normalized, see L{clean_domain}; C{*} for all.
    @ivar ports: ranges, each with its first and its last port.
    """

    domains: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, domains: Iterable[str], ports: Iterable[str]) -> Allowance:
        """
        Parse one.

        @raise ValueError: if a domain or a port is invalid.
        """
        return cls(
            tuple("*" if each == "*" else clean_domain(each) for each in domains),
            tuple(map(parse_ports, ports)),
        )

    def __or__(self, other: Allowance) -> Allowance:
        """Return the union of two allowances."""
        return Allowance(self.domains + other.domains, self.ports + other.ports)

    def permits_domain(self, domain: str) -> bool:
        """
        Say whether a domain is allowed.

        C{*.x.example} allows all names below, and itself, but not C{x.example}.
        """
        return any(
            pattern in ("*", domain) or (pattern[:2] == "*." and domain.endswith(pattern[1:]))
            for pattern in self.domains
        )

    def permits_port(self, port: int) -> bool:
        """Say whether a port is allowed."""
        return any(first <= port <= last for first, last in self.ports)


NOTHING: Final = Allowance()
