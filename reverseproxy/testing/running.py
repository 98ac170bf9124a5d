"""Whole processes, and connections that carry streams, in memory."""

from __future__ import annotations

__all__ = ["mux_pair", "run"]

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock

from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.mux.session import MuxSession
from reverseproxy.testing.reactor import MemoryReactor
from reverseproxy.testing.transport import join


def mux_pair(
    clock: Clock,
    accept: Callable[[], IProtocol | None] | None = None,
    accept_other: Callable[[], IProtocol | None] | None = None,
    **options: Any,
) -> tuple[MuxSession, MuxSession]:
    """
    Make the two ends of a connection that carries streams.

    @param accept: makes the protocols of streams that the first end opens; they
        are at the second end.
    @param accept_other: the same, the other way round.
    @param options: for both; see L{MuxSession}.
    """
    first = MuxSession(True, clock, accept=accept_other, **options)
    second = MuxSession(False, clock, accept=accept, **options)
    join(clock, first, second)
    return first, second


def run(document: Mapping[str, Any], reactor: MemoryReactor, seed: int = 1) -> ReverseProxy:
    """
    Run what a configuration describes: a server, an agent, or both.

    C{stopService} of what is returned drains it and stops it; let the time pass
    that this takes.

    @param document: the configuration, as it would stand in a file.
    @param seed: for whatever is random.
    @raise ConfigError: if the configuration can't be used.
    """
    loaded = loads(json.dumps(document), "document")
    service = ReverseProxy(loaded.config, reactor, Random(seed))  # noqa: S311 - tests repeat themselves
    service.privilegedStartService()
    service.startService()
    reactor.settle()
    return service
