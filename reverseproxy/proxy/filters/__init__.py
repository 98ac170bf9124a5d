"""
Filters of requests: what MOSN calls stream filters.

A L{FilterChain} is built once for a listener (C{building}); each request that
needs one goes through its filters as a L{FilteredRequest} (C{chain}), whichever
protocol it has come by.  What a filter decides is pure: it is given the time and
its randomness, and says what it wants done.

A listener without filters has no chain, and its requests cost nothing more.
"""

from __future__ import annotations

__all__ = ["BodyLimit", "FilterChain", "FilteredRequest", "Passage", "LocalReply", "build_chain"]

from reverseproxy.proxy.filters.building import build_chain
from reverseproxy.proxy.filters.chain import BodyLimit, FilterChain, FilteredRequest, LocalReply, Passage
