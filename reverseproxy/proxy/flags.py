"""
Why a request did not end with the whole answer of a host: codes that people and machines can count.

The codes, and the long words, are those of Envoy's access logs
(C{%RESPONSE_FLAGS%} and C{%RESPONSE_FLAGS_LONG%}), as that is what dashboards
and people know.  Where an exchange of ours can fail in a way that Envoy's can't,
the nearest one is used; C{docs/access-logs.rst} says what each stands for here.

A request may have several: C{UF,URX} is one that no host could be reached for,
in as many attempts as it may have.
"""

from __future__ import annotations

__all__ = [
    "NO_FLAGS",
    "ResponseFlag",
    "flag_of",
    "long_names",
    "session_flags",
    "short_names",
    "what_to_do",
    "who_ended",
]

from enum import IntFlag
from functools import lru_cache
from typing import Final, NamedTuple

from twisted.internet.error import ConnectionAborted, ConnectionDone, DNSLookupError
from twisted.python.failure import Failure

from reverseproxy.errors import ClusterUnknown, NoHealthyHost, NoHostCame, QueueFull, QueueTimeout

NO_FLAGS: Final = 0
"""What a request has that a host has answered completely."""


class ResponseFlag(IntFlag):
    """One reason; see the module's text."""

    UH = 1 << 0
    UF = 1 << 1
    UO = 1 << 2
    UT = 1 << 3
    UC = 1 << 4
    UR = 1 << 5
    UPE = 1 << 6
    URX = 1 << 7
    NR = 1 << 8
    NC = 1 << 9
    DC = 1 << 10
    DR = 1 << 11
    DPE = 1 << 12
    DT = 1 << 13
    LR = 1 << 14
    RL = 1 << 15
    FI = 1 << 16
    DI = 1 << 17
    UAEX = 1 << 18
    SI = 1 << 19
    DF = 1 << 20
    OM = 1 << 21


class _Meaning(NamedTuple):
    """What is said of a flag."""

    long: str
    remedy: str


_MEANINGS: Final[dict[ResponseFlag, _Meaning]] = {
    ResponseFlag.UH: _Meaning(
        "NoHealthyUpstream",
        "see whether an agent has joined this cluster, or what its health checks say",
    ),
    ResponseFlag.UF: _Meaning(
        "UpstreamConnectionFailure",
        "see whether the service runs, and whether its address in the configuration is right",
    ),
    ResponseFlag.UO: _Meaning(
        "UpstreamOverflow",
        "let agents bring more connections (connection_num), add hosts, or raise the limits of the cluster",
    ),
    ResponseFlag.UT: _Meaning(
        "UpstreamRequestTimeout",
        "see why the host is slow, or give it more time: timeout of the route",
    ),
    ResponseFlag.UC: _Meaning(
        "UpstreamConnectionTermination",
        "see in the log of the host, or of its agent, why it closed the connection",
    ),
    ResponseFlag.UR: _Meaning(
        "UpstreamRemoteReset", "see in the log of the host why it broke the request off"
    ),
    ResponseFlag.UPE: _Meaning(
        "UpstreamProtocolError",
        "see whether the host speaks the protocol that the route demands, and what it has answered",
    ),
    ResponseFlag.URX: _Meaning("UpstreamRetryLimitExceeded", "see what the attempts failed by"),
    ResponseFlag.NR: _Meaning(
        "NoRouteFound", "add a route for it, or find out with 'reverseproxy explain' which one would take it"
    ),
    ResponseFlag.NC: _Meaning(
        "NoClusterFound", "define the cluster in cluster_manager, or name another one in the route"
    ),
    ResponseFlag.DC: _Meaning("DownstreamConnectionTermination", ""),
    ResponseFlag.DR: _Meaning("DownstreamRemoteReset", ""),
    ResponseFlag.DPE: _Meaning("DownstreamProtocolError", ""),
    ResponseFlag.DT: _Meaning(
        "DurationTimeout", "give clients more time: request_timeout of the proxy filter"
    ),
    ResponseFlag.LR: _Meaning("LocalReset", ""),
    ResponseFlag.RL: _Meaning("RateLimited", "raise the threshold in the flow control filter"),
    ResponseFlag.FI: _Meaning("FaultInjected", "the fault filter does this"),
    ResponseFlag.DI: _Meaning("DelayInjected", "the fault filter does this"),
    ResponseFlag.UAEX: _Meaning("UnauthorizedExternalService", "let the address in, in the ip_access filter"),
    ResponseFlag.SI: _Meaning(
        "StreamIdleTimeout", "allow more time: stream_idle_timeout of the proxy filter"
    ),
    ResponseFlag.DF: _Meaning(
        "DnsResolutionFailed", "see whether the host's name is right, and can be looked up here"
    ),
    ResponseFlag.OM: _Meaning(
        "OverloadManagerTerminated", "raise max_unfinished_size of the server, if there is memory"
    ),
}

_CAUSES: Final = (ResponseFlag.DF, ResponseFlag.UF)

_BY_CAUSE: Final = (
    *_CAUSES,
    *(flag for flag in _MEANINGS if flag not in (*_CAUSES, ResponseFlag.URX)),
    ResponseFlag.URX,
)
"""The flags, those first that say most of what to do."""


@lru_cache(1024)
def short_names(flags: int) -> str:
    """Write flags as C{UF,URX}; nothing for L{NO_FLAGS}."""
    return ",".join(str(flag.name) for flag in _MEANINGS if flags & flag)


@lru_cache(1024)
def long_names(flags: int) -> str:
    """Write flags as C{UpstreamConnectionFailure,UpstreamRetryLimitExceeded}."""
    return ",".join(meaning.long for flag, meaning in _MEANINGS.items() if flags & flag)


@lru_cache(1024)
def what_to_do(flags: int) -> str:
    """Say how an operator may help, in a few words; nothing if there is nothing to do here."""
    return next((_MEANINGS[flag].remedy for flag in _BY_CAUSE if flags & flag), "")


def flag_of(error: BaseException | None) -> int:
    """Say what stands for an error that kept a request from a host; nothing for one that we don't know."""
    if isinstance(error, NoHealthyHost | NoHostCame):
        return ResponseFlag.UH
    if isinstance(error, QueueFull | QueueTimeout):
        return ResponseFlag.UO
    if isinstance(error, ClusterUnknown):
        return ResponseFlag.NC
    if isinstance(error, DNSLookupError):
        return ResponseFlag.UF | ResponseFlag.DF
    return NO_FLAGS


def session_flags(reason: Failure, lost: int) -> int:
    """
    Say what stands for the end of one side of a session of bytes; nothing, where that side has closed it.

    @param lost: what stands for a connection that broke off.
    """
    if reason.check(ConnectionDone) is not None:
        return NO_FLAGS
    return ResponseFlag.LR if reason.check(ConnectionAborted) is not None else lost


def who_ended(reason: Failure) -> int:
    """Say what stands for the end of a client's connection, which it has ended, or we have aborted."""
    return ResponseFlag.LR if reason.check(ConnectionAborted) is not None else ResponseFlag.DC
