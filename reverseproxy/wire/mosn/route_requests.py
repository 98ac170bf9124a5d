"""
Routes that an agent asks for in its init frame, and those that it is given.

Both stand under C{routes} in our part of C{extra}, see
L{reverseproxy.wire.mosn.extensions}.  An agent that asks must know whether it
was heard, so that a request that is not well-formed is an error here, and not
taken for none.
"""

from __future__ import annotations

__all__ = ["MAX_ROUTES", "BroughtRoutes", "RouteRequest"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_ROUTES: Final = 32
"""How many domains and subdomains one connection may ask for."""

MAX_NAME: Final = 253
"""Characters of the longest of them."""

_KEY: Final = "routes"


def _names(part: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = part.get(key, [])
    if not isinstance(value, list) or len(value) > MAX_ROUTES:
        raise ValueError(f"routes.{key} must be a list of at most {MAX_ROUTES} names")
    for each in value:
        if not isinstance(each, str) or not 0 < len(each) <= MAX_NAME or not each.isprintable():
            raise ValueError(f"routes.{key} must have names of 1 to {MAX_NAME} printable characters")
    return tuple(value)


def _port(part: Mapping[str, Any]) -> int | None:
    value = part.get("port")
    if value is not None and (type(value) is not int or not 0 <= value <= 65535):
        raise ValueError("routes.port must be 0 to 65535")
    return value


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """
    What an agent asks for.

    @ivar domains: for HTTP: host names, or C{*.} and one.
    @ivar subdomains: names in the server's zone.
    @ivar port: for TCP; 0 for any that is free, L{None} for none.
    """

    domains: tuple[str, ...] = ()
    subdomains: tuple[str, ...] = ()
    port: int | None = None

    def __bool__(self) -> bool:
        return bool(self.domains or self.subdomains) or self.port is not None

    def to_part(self) -> dict[str, Any]:
        """Make what stands in our part of C{extra}; empty if nothing is asked for."""
        if not self:
            return {}
        asked: dict[str, Any] = {}
        if self.domains:
            asked["domains"] = list(self.domains)
        if self.subdomains:
            asked["subdomains"] = list(self.subdomains)
        if self.port is not None:
            asked["port"] = self.port
        return {_KEY: asked}

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> RouteRequest:
        """
        Find what is asked for in our part of C{extra}.

        @raise ValueError: if it is not well-formed.
        """
        asked = part.get(_KEY)
        if asked is None:
            return cls()
        if not isinstance(asked, Mapping):
            raise ValueError("routes must be an object")
        return cls(_names(asked, "domains"), _names(asked, "subdomains"), _port(asked))


@dataclass(frozen=True, slots=True)
class BroughtRoutes:
    """
    What an agent was given.

    @ivar domains: all of them, with those of the server's zone in full.
    @ivar port: for TCP; L{None} for none.
    @ivar url: how clients get to a domain, with C{{domain}} in its place; empty if
        the server does not say.
    """

    domains: tuple[str, ...] = ()
    port: int | None = None
    url: str = ""

    @property
    def addresses(self) -> list[str]:
        """What to tell people: the URLs of the domains, or these themselves."""
        return [self.url.replace("{domain}", domain) if self.url else domain for domain in self.domains]

    def __bool__(self) -> bool:
        return bool(self.domains) or self.port is not None

    def __str__(self) -> str:
        shown = list(self.domains)
        if self.port is not None:
            shown.append(f"port {self.port}")
        return ", ".join(shown)

    def to_part(self) -> dict[str, Any]:
        """Make what stands in our part of C{extra}."""
        part = RouteRequest(self.domains, (), self.port).to_part()
        if part and self.url:
            part[_KEY]["url"] = self.url
        return part

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> BroughtRoutes:
        """
        Find it in our part of C{extra}.

        @raise ValueError: if it is not well-formed.
        """
        asked = RouteRequest.from_part(part)
        url = part[_KEY].get("url", "") if asked else ""
        if not isinstance(url, str) or len(url) > MAX_NAME or not url.isprintable():
            raise ValueError(f"routes.url must have at most {MAX_NAME} printable characters")
        return cls(asked.domains, asked.port, url)
