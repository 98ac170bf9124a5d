"""
Bytes of one side through the whole proxy, judged on the other side by h11.

What goes on is written by more than the decoders: routes look at heads and
change them, HTTP/2 becomes HTTP/1, bodies begin before they are all there.
"""

from __future__ import annotations

__all__ = ["proxied_http2", "proxied_http2_responses", "proxied_requests", "proxied_responses"]

from functools import cache
from typing import Any

import h11

from reverseproxy.wire.http1.heads import RequestHead
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http2.frames import PREFACE
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Wire
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http1_cases import get, respond

_CLUSTER = {"cluster_name": "c", "upstream_protocol": "Http1"}

_ROUTES: list[dict[str, Any]] = [
    {
        "match": {"prefix": "/", "headers": [{"name": "x", "value": "y"}]},
        "route": {
            **_CLUSTER,
            "prefix_rewrite": "/rewritten/",
            "request_headers_to_add": [{"header": {"name": "x-added", "value": "%request_header_x%"}}],
            "request_headers_to_remove": ["x-removed"],
        },
    },
    {
        "match": {"prefix": "/", "headers": [{"name": "cookie", "value": ".*", "regex": True}]},
        "route": _CLUSTER,
    },
    {"match": {"prefix": "/"}, "route": _CLUSTER},
]


# They are made once, as that takes longer than most inputs; nothing of one input may be left for the next.
@cache
def _world(http2: bool = False) -> Http2World:
    return Http2World(routes=HTTP2 if http2 else _ROUTES, access_log=lambda record: None)


class _Host:
    """One connection to a host, which answers what is a request for h11."""

    def __init__(self, wire: Wire) -> None:
        self.requests = 0
        self._body = b""
        self._wire = wire
        self._reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)

    def look(self) -> bool:
        """Read, and answer; tell whether there was anything to do."""
        data = self._wire.take()
        if self._wire.lost or not data:
            return False
        self._reader.receive_data(data)
        while True:
            event = self._reader.next_event()
            if isinstance(event, h11.Request):
                self.requests += 1
                self._body = b"" if event.method == b"HEAD" else b"ok"
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
            elif event is h11.PAUSED:
                raise AssertionError(f"more than a request at once: {self._reader.trailing_data}")
            elif event is h11.NEED_DATA:
                return True

    def _answer(self) -> None:
        response = h11.Response(status_code=200, headers=[("content-length", "2"), ("x", "y")])
        reader = self._reader
        out = [reader.send(each) for each in (response, h11.Data(self._body), h11.EndOfMessage())]
        if reader.our_state is h11.DONE and reader.their_state is h11.DONE:
            reader.start_next_cycle()
        self._wire.send(b"".join(each for each in out if each))


class _Hosts:
    """All connections to hosts that one input leads to."""

    def __init__(self, world: Http2World) -> None:
        self._wires = world.endpoint.wires
        self._wires.clear()
        self._hosts: list[_Host] = []

    @property
    def requests(self) -> int:
        return sum(host.requests for host in self._hosts)

    def look(self) -> None:
        busy = True
        while busy:
            self._hosts += [_Host(wire) for wire in self._wires[len(self._hosts) :]]
            busy = any(host.look() for host in self._hosts)


def _fail(message: str) -> None:
    raise AssertionError(message)


def _leave(world: Http2World, client: Wire) -> None:
    """Everybody goes, and nothing is left."""
    client.reset()
    for wire in list(world.endpoint.wires):
        wire.reset()
    world.turn()
    world.clients.clear()
    world.endpoint.dials.clear()
    world.check_idle(_fail)


def _send(client: Wire, cut: list[bytes], hosts: _Hosts, world: Http2World) -> None:
    for piece in cut:
        client.send(piece)
        hosts.look()
    client.end()
    world.turn()
    hosts.look()


def proxied_requests(whole: bytes, cut: list[bytes]) -> None:
    """Requests of HTTP/1, to hosts of HTTP/1."""
    world = _world()
    hosts = _Hosts(world)
    client = world.http1_client()
    _send(client, cut, hosts, world)
    events = RequestParser().feed(whole)
    if not any(isinstance(event, RequestHead) and event.upgrade for event in events):
        asked = sum(isinstance(event, RequestHead) for event in events)
        assert hosts.requests <= asked, f"{asked} requests have become {hosts.requests}"
    _leave(world, client)


def proxied_http2(whole: bytes, cut: list[bytes]) -> None:
    """Requests of HTTP/2, to hosts of HTTP/1."""
    world = _world()
    hosts = _Hosts(world)
    peer = world.connect(greet=False)
    peer.wire.send(PREFACE)
    _send(peer.wire, cut, hosts, world)
    _leave(world, peer.wire)


def proxied_responses(whole: bytes, cut: list[bytes]) -> None:
    """Responses of hosts of HTTP/1, to two requests of a client of HTTP/1."""
    _answer(_world(), cut)


def proxied_http2_responses(whole: bytes, cut: list[bytes]) -> None:
    """What hosts of HTTP/2 answer to a client of HTTP/1."""
    _answer(_world(http2=True), cut)


def _answer(world: Http2World, cut: list[bytes]) -> None:
    _Hosts(world)
    client = world.http1_client()
    client.send(get())
    host = world.endpoint.wires[0]
    for piece in cut:
        host.send(piece)
    host.end()
    world.turn()
    answer = client.take()
    complete = _complete(answer, client.lost)
    if complete and not client.lost and world is _world():
        # Whatever stood behind the first answer, the second request gets its own.
        client.send(get())
        world.endpoint.wires[-1].send(respond(b"Content-Length: 3", b"X-Own: 1", body=b"own"))
        own = client.take()
        assert own.endswith(b"own"), f"{answer!r}, then {own!r}"
    _leave(world, client)


def _complete(data: bytes, lost: bool) -> bool:
    """Whether it is one answer with all of its body, as h11 sees it."""
    if not data:
        return False  # the request is on its way to another host, or the same again
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    reader.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    if lost:
        reader.receive_data(b"")
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError as error:
            if not lost and "illegal" not in str(error):
                raise AssertionError(f"{data!r} on a connection that lives") from error
            return False
        if isinstance(event, h11.EndOfMessage):
            assert not reader.trailing_data[0], f"{data!r}: more than one answer"
            return True
        if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return False
