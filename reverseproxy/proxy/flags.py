"""
Response flags: why a request did not end with the complete response of a host.

The short and long names are those of Envoy's access logs (C{%RESPONSE_FLAGS%} and
C{%RESPONSE_FLAGS_LONG%}), which dashboards and people know.  For failures that Envoy
does not have, the nearest flag is used; C{docs/access-logs.rst} explains each.

A request may have several: C{UF,URX} means that no host could be reached, in as many
attempts as the route allows.
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
"""The flags of a request that a host has answered completely."""


class ResponseFlag(IntFlag):
    """One reason; see C{docs/access-logs.rst}."""

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
    """The long name of a flag, and advice for operators."""

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
"""The flags, those with the most specific advice first."""


@lru_cache(1024)
def short_names(flags: int) -> str:
    """Format flags as C{UF,URX}; empty for L{NO_FLAGS}."""
    return ",".join(str(flag.name) for flag in _MEANINGS if flags & flag)


@lru_cache(1024)
def long_names(flags: int) -> str:
    """Format flags as C{UpstreamConnectionFailure,UpstreamRetryLimitExceeded}."""
    return ",".join(meaning.long for flag, meaning in _MEANINGS.items() if flags & flag)


@lru_cache(1024)
def what_to_do(flags: int) -> str:
    """Return advice for operators, in a few words; empty for none."""
    return next((_MEANINGS[flag].remedy for flag in _BY_CAUSE if flags & flag), "")


def flag_of(error: BaseException | None) -> int:
    """Return the flags of an error because of which a request got no host; none for an unknown error."""
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
    Return the flags of the loss of one end of a session; none if that end closed it.

    @param lost: the flag of a connection that broke off.
    """
    if reason.check(ConnectionDone) is not None:
        return NO_FLAGS
    return ResponseFlag.LR if reason.check(ConnectionAborted) is not None else lost


def who_ended(reason: Failure) -> int:
    """Return the flag of the loss of a client's connection: closed by the client, or aborted by us."""
    return ResponseFlag.LR if reason.check(ConnectionAborted) is not None else ResponseFlag.DC
