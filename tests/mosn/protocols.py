"""The ends of each protocol by its name."""

from __future__ import annotations

__all__ = ["make_answerer", "make_asker"]

from tests.mosn.http1 import Http1Answerer, Http1Asker
from tests.mosn.http2 import Http2Answerer, Http2Asker
from tests.mosn.raw import RawAnswerer, RawAsker
from tests.mosn.rpc import CODECS, RpcAnswerer, RpcAsker
from tests.mosn.talk import Answerer, Asker


def make_asker(protocol: str, *, hasty: bool = False, at_once: int = 1) -> Asker:
    """
    Make the end that asks.

    @param hasty: see L{Http2Asker}.
    @param at_once: of HTTP/1, see L{Http1Asker}.
    """
    match protocol:
        case "Http1":
            return Http1Asker(at_once)
        case "Http2":
            return Http2Asker(hasty)
        case "tcp":
            return RawAsker()
    return RpcAsker(CODECS[protocol])


def make_answerer(protocol: str, *, streamed: bool = False) -> Answerer:
    """
    Make the end that answers.

    @param streamed: see L{Http2Answerer}.
    """
    match protocol:
        case "Http1":
            return Http1Answerer()
        case "Http2":
            return Http2Answerer(streamed)
        case "tcp":
            return RawAnswerer()
    return RpcAnswerer(CODECS[protocol])
