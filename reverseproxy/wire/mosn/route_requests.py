"""
Routes that an agent asks for in its init frame, and those that it is given.

Both are the member C{routes} of what L{reverseproxy.wire.mosn.extensions} has.  A
malformed request for routes is an error, and not taken for none, as the agent has
to know whether it was understood.
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
    The routes that an agent asks for.

    @ivar domains: for HTTP: host names, or C{*.} and one.
    @ivar subdomains: names below the server's zone.
    @ivar port: for TCP; 0 for any that is free, L{None} for none.
    """

    domains: tuple[str, ...] = ()
    subdomains: tuple[str, ...] = ()
    port: int | None = None

    def __bool__(self) -> bool:
        return bool(self.domains or self.subdomains) or self.port is not None

    def to_part(self) -> dict[str, Any]:
        """Return the member C{routes}; nothing if no route is asked for."""
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
        Parse the member C{routes}.

        @raise ValueError: if it is malformed.
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
    The routes that an agent was given.

    @ivar domains: all of them, with those below the server's zone in full.
    @ivar port: for TCP; L{None} for none.
    @ivar url: how clients reach a domain, with C{{domain}} in its place; empty if
        the server does not say.
    """

    domains: tuple[str, ...] = ()
    port: int | None = None
    url: str = ""

    @property
    def addresses(self) -> list[str]:
        """The URLs of the domains, or the domains if there is no L{url}, for people."""
        return [self.url.replace("{domain}", domain) if self.url else domain for domain in self.domains]

    def __bool__(self) -> bool:
        return bool(self.domains) or self.port is not None

    def __str__(self) -> str:
        shown = list(self.domains)
        if self.port is not None:
            shown.append(f"port {self.port}")
        return ", ".join(shown)

    def to_part(self) -> dict[str, Any]:
        """Return the member C{routes}; nothing if there is no route."""
        part = RouteRequest(self.domains, (), self.port).to_part()
        if part and self.url:
            part[_KEY]["url"] = self.url
        return part

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> BroughtRoutes:
        """
        Parse the member C{routes}.

        @raise ValueError: if it is malformed.
        """
        asked = RouteRequest.from_part(part)
        url = part[_KEY].get("url", "") if asked else ""
        if not isinstance(url, str) or len(url) > MAX_NAME or not url.isprintable():
            raise ValueError(f"routes.url must have at most {MAX_NAME} printable characters")
        return cls(asked.domains, asked.port, url)
