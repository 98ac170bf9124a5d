"""
The choice of the virtual host, by the Host header.

The order is MOSN's (C{findVirtualHost} in C{pkg/router/routers_impl.go}):
an exact host with its port, an exact host with any port, a suffix with its port,
longer ones first, a suffix with any port, and the default.  There, a domain
without a port matches only requests whose Host has none.  As users expect
otherwise, the option C{ignore_host_port} makes the port not count, and the log
explains why no virtual host matches.
"""

from __future__ import annotations

__all__ = ["Domains", "shown"]

from functools import lru_cache
from typing import Final

from reverseproxy.routing.facts import RouteInput, split_host
from reverseproxy.routing.matching import Matcher, nothing
from reverseproxy.routing.results import RouteResult

_HOSTS_KEPT: Final = 256
"""Hosts whose rules are cached."""

_SHOWN: Final = 100
"""Characters of a Host that are quoted in logs."""

_HARMLESS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:[]%")


class Domains:
    """
    The domains of a router, with their rules.

    A look-up takes one dictionary access for each distinct length of suffixes, however
    many domains there are.

    @ivar default: the rules for hosts that match no domain; L{None} if there are none.
    """

    def __init__(self, ignore_port: bool = False) -> None:
        """
        @param ignore_port: whether domains without a port match requests with any
            port, and a dot at the end of a name does not count.
        """
        self.default: Matcher | None = None
        self._ignore_port = ignore_port
        self._exact: dict[tuple[str, str], Matcher] = {}
        self._wildcard: dict[str, dict[str, Matcher]] = {}  # port -> suffix -> rules
        self._lengths: dict[str, list[int]] = {}  # port -> lengths of suffixes, the longest first

    @property
    def by_name(self) -> bool:
        """Whether the Host counts at all."""
        return bool(self._exact or self._wildcard)

    def add(self, domain: str, rules: Matcher) -> str:
        """
        Add a domain.

        @return: what is wrong with it; empty if nothing is.
        """
        split = self._split(domain.lower())
        if split is None or not domain:
            return f"{domain!r} is not a host name, optionally with a port"
        name, port = split
        if name == "*" and port in ("", "*"):
            if self.default is not None:
                return "there is a default domain already"
            self.default = rules
            return ""
        if "*" in name[1:]:
            return f"in {domain!r}, '*' may only be the first character"
        if name[:1] == "*":
            suffixes = self._wildcard.setdefault(port, {})
            taken = name[1:] in suffixes
            suffixes[name[1:]] = rules
            self._lengths[port] = sorted({len(suffix) for suffix in suffixes}, reverse=True)
        else:
            taken = (name, port) in self._exact
            self._exact[name, port] = rules
        return f"{domain!r} occurs twice" if taken else ""

    def has(self, domain: str) -> bool:
        """Whether just this domain has been added."""
        split = self._split(domain.lower())
        if split is None:
            return False
        name, port = split
        if name[:1] == "*":
            return name[1:] in self._wildcard.get(port, {})
        return (name, port) in self._exact

    def remove(self, domain: str) -> None:
        """
        Remove a domain that was added, other than the default one.

        A L{matcher} that was made before may still have it.
        """
        split = self._split(domain.lower())
        assert split is not None
        name, port = split
        if name[:1] == "*":
            suffixes = self._wildcard[port]
            del suffixes[name[1:]]
            self._lengths[port] = sorted({len(suffix) for suffix in suffixes}, reverse=True)
            if not suffixes:
                del self._wildcard[port], self._lengths[port]
        else:
            del self._exact[name, port]

    def _split(self, host: str) -> tuple[str, str] | None:
        """Return a host and its port, in the form that is looked up."""
        split = split_host(host)
        if split is None or not self._ignore_port:
            return split
        name, port = split
        if name[:1] == "[" and name[-1:] == "]":
            name = name[1:-1]  # which one with a port has lost already
        if len(name) > 1 and name[-1] == ".":
            name = name[:-1]
        return name, port

    def _find(self, name: str, port: str) -> Matcher | None:
        """Return the rules for a host, apart from the default ones."""
        ports = (port, "*", "") if self._ignore_port else (port, "*")
        for key in ports:
            rules = self._exact.get((name, key))
            if rules is not None:
                return rules
        for key in ports:
            for length in self._lengths.get(key, ()):
                # The asterisk stands for one character at least.
                if length < len(name):
                    rules = self._wildcard[key].get(name[len(name) - length :])
                    if rules is not None:
                        return rules
        return None

    def _rules_for(self, host: str) -> Matcher:
        split = self._split(host.lower())
        if split is None or not host:
            return nothing
        return self._find(*split) or self.default or nothing

    def matcher(self) -> Matcher:
        """Return the choice of the virtual host, and of its rule, as one function."""
        if not self.by_name:
            return self.default or nothing
        # Clients send any host, so that the cache has a bound.
        remembered = lru_cache(_HOSTS_KEPT)(self._rules_for)

        def match(facts: RouteInput) -> RouteResult | None:
            return remembered(facts.host)(facts)

        return match

    def explain(self, host: str) -> str:
        """
        Explain why no virtual host matches a host.

        @return: a sentence for the log, perhaps with a hint; empty if one matches,
            but none of its rules.
        """
        if not self.by_name:
            return "" if self.default is not None else "there is no virtual host"
        if not host:
            return 'it names no host, and only a router whose one domain is "*" takes such requests'
        split = self._split(host.lower())
        if split is None:
            return f"{shown(host)} is no host name, optionally with a port"
        if self.default is not None or self._find(*split) is not None:
            return ""
        return f"no domain takes the Host {shown(host)}{self._hint(*split)}"

    def _hint(self, name: str, port: str) -> str:
        """Return a hint at a domain that nearly matches."""
        bare = name[:-1] if len(name) > 1 and name[-1] == "." else name
        for other in ("", port):
            if (bare, other) != (name, port) and self._find(bare, other) is not None:
                parts = ["the port"] * (other != port) + ["the dot at its end"] * (bare != name)
                return (
                    f"; one takes {shown(bare)}, without {' and '.join(parts)}: to take both, "
                    "set ignore_host_port to true on the router"
                )
        ports = sorted(each for host, each in self._exact if host == bare)
        return f"; one takes it with the port {' or '.join(ports)}" if ports else ""


def shown(host: str) -> str:
    """Quote a host that a client has sent: shortened, and without characters that could do harm in a log."""
    text = host if len(host) <= _SHOWN else host[:_SHOWN] + "..."
    return '"' + "".join(character if character in _HARMLESS else "?" for character in text) + '"'
