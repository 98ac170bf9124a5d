"""
From what is known of a request to what shall happen with it.  Pure.

A L{Router} is built once from its configuration (C{table}); its L{Router.match}
takes L{RouteInput} (C{facts}) and gives a L{RouteResult} (C{results}).  A
L{ClusterRoute} carries what else the route says, for whoever forwards the
request: C{timeouts}, C{retries}, C{mutation} of headers, path and Host, what
consistent C{hashing} goes by.  C{matching} has the tests of rules, C{patterns}
their regular expressions, and C{variables} MOSN's variables.

Randomness is handed in, and so is what depends on more than the request.
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
from reverseproxy.routing.timeouts import DEFAULT_TIMEOUT, Timeouts, patience, timeouts
