"""
Routing: from a request to what is done with it.  Pure.

A L{Router} is built once from its configuration (C{table}); its L{Router.match}
takes L{RouteInput} (C{facts}) and returns a L{RouteResult} (C{results}).  A
L{ClusterRoute} has the further options of the route, which apply when the request
is forwarded: C{timeouts}, C{retries}, C{mutation} of headers, path and Host, and
the key of consistent C{hashing}.  C{matching} has the tests of rules, C{patterns}
their regular expressions, and C{variables} MOSN's variables.

Random numbers are passed in, and so is everything that depends on more than the request.
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_RETRY",
    "DEFAULT_TIMEOUT",
    "IMMUTABLE_FIELDS",
    "RETRY_PAUSE",
    "Cause",
    "ClusterRoute",
    "DirectResponse",
    "HeaderMutation",
    "Headers",
    "Lookup",
    "Mirror",
    "Redirect",
    "RouteInput",
    "RequestMutation",
    "RetryPolicy",
    "Rewritten",
    "RouteResult",
    "Router",
    "Timeouts",
    "grpc_timeout",
    "header_test",
    "normalize_path",
    "patience",
    "should_retry",
    "shown",
    "split_host",
    "timeouts",
]

from reverseproxy.routing.facts import Headers, Lookup, RouteInput, normalize_path, split_host
from reverseproxy.routing.header_tests import header_test
from reverseproxy.routing.hosts import shown
from reverseproxy.routing.mutation import IMMUTABLE_FIELDS, HeaderMutation, RequestMutation, Rewritten
from reverseproxy.routing.results import ClusterRoute, DirectResponse, Mirror, Redirect, RouteResult
from reverseproxy.routing.retries import DEFAULT_RETRY, RETRY_PAUSE, Cause, RetryPolicy, should_retry
from reverseproxy.routing.table import Router
from reverseproxy.routing.timeouts import DEFAULT_TIMEOUT, Timeouts, grpc_timeout, patience, timeouts
