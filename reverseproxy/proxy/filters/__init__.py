"""
Filters of requests: what MOSN calls stream filters.

A L{FilterChain} is built once for a listener (C{building}); each request passes
its filters as a L{FilteredRequest} (C{chain}), in every protocol.  Filters do no
I/O: they are given the time and random numbers, and return what is to be done.

A listener without filters has no chain.
"""

from __future__ import annotations

__all__ = ["BodyLimit", "FilterChain", "FilteredRequest", "Passage", "LocalReply", "build_chain"]

from reverseproxy.proxy.filters.building import build_chain
from reverseproxy.proxy.filters.chain import BodyLimit, FilterChain, FilteredRequest, LocalReply, Passage
