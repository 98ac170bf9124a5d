"""The proxy filter, and the options of its protocols."""

from __future__ import annotations

__all__ = [
    "BoltOptions",
    "Http1Options",
    "Http2Options",
    "HttpOptions",
    "ProtocolOptions",
    "ProxyConfig",
    "RpcOptions",
    "UPSTREAM_PROTOCOLS",
    "UPSTREAM_UNUSED",
]

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Bool, Free, Int, Span, Text, UInt, between, or_default, quote
from reverseproxy.config.networks import Believed

_HEADER_SIZE: Final = 8192

_FRAME_SIZE: Final = 16 * 1024 * 1024

STREAM_IDLE: Final = 300.0
"""The default of stream_idle_timeout, in seconds."""

UPSTREAM_PROTOCOLS: Final = ("Auto", "Http1", "Http2", "X", "bolt", "boltv2", "dubbo")

UPSTREAM_UNUSED: Final = "not acted on, as in MOSN; hosts are spoken to as the client speaks"


# RFC 9110 7.6.3: a pseudonym, or a host with a port
_RECEIVED_BY: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]*")


def _received_by(text: str) -> str:
    if not _RECEIVED_BY.fullmatch(text):
        raise ValueError(f'{quote(text)} can\'t be in a Via header; write a name such as "edge-1"')
    return text


class HttpOptions(Model):
    """What is the same for every version of HTTP."""

    max_request_body_size: UInt = key(
        0, "The most bytes that the body of a request may have; 0 means any number.", protects=True
    )
    max_headers_count: Annotated[Int, between(1, 10_000)] = key(
        100,
        "The most fields that the head of a request may have, and its trailers. On connections of tunnel "
        "agents there may be 32 more, for what the server adds.",
        ours=True,
    )
    via: Annotated[Text, AfterValidator(_received_by)] = key(
        "",
        "A name for this proxy that is added to the Via header; empty means that Via is left alone.",
        ours=True,
    )
    x_forwarded: Literal["off", "append", "replace"] = key(
        "off",
        'What to do with the headers X-Forwarded-For, -Proto and -Host: add nothing to what came ("off"), '
        'add to it ("append"), or replace them ("replace"). Those of an untrusted client are '
        "removed first; see trusted_proxies.",
        ours=True,
    )


class Http1Options(HttpOptions):
    """Limits and habits of HTTP/1."""

    max_header_size: Annotated[UInt, or_default(_HEADER_SIZE)] = key(
        _HEADER_SIZE,
        f"The most bytes that the head of a request may have; 0 means {_HEADER_SIZE}. On connections of "
        "tunnel agents there may be 16 KiB more, for what the server adds, and without this key 80 KiB in "
        "all, as the server may have taken it in HTTP/2.",
    )


class Http2Options(HttpOptions):
    """Limits and habits of HTTP/2."""

    http2_use_stream: Bool = key(
        False,
        "Whether bodies are passed on as they come. They always are.",
        acted=False,
        quiet=True,
        why="not acted on; bodies are always passed on as they come, as MOSN does if this is true",
        harmless=(True,),
    )
    max_request_body_size: UInt = key(
        0, "The most bytes that the body of a request may have; 0 means any number.", ours=True, protects=True
    )
    max_concurrent_streams: Annotated[Int, between(1, 10_000)] = key(
        100, "How many requests of one connection may be under way; further ones are refused.", ours=True
    )
    max_header_list_size: Annotated[Int, between(1024, 1024 * 1024)] = key(
        65536,
        "The most bytes that the head of a request may have: of names, of values, and 32 for each field. On "
        "connections of tunnel agents there may be some 20 KiB more, for what the server adds.",
        ours=True,
    )
    initial_window_size: Annotated[Int, between(1024, 64 * 1024 * 1024)] = key(
        262144,
        "How many bytes of a request's body a client may send that are not passed on yet, to begin with. A "
        "window grows while a body that comes from far away is passed on as fast as it comes.",
        ours=True,
    )
    max_window_size: Annotated[Int, between(1024, 2**30)] = key(
        2**26,
        "To how many bytes a window may grow; initial_window_size, if that is more. What a client sends in "
        "a round trip has to fit in three quarters of it: 48 MiB are 250 MB/s over 200 ms.",
        ours=True,
    )
    max_window_growth: Annotated[Int, between(0, 2**30)] = key(
        2**26,
        "By how many bytes the windows of all requests of one connection may grow together; 0 means that "
        "they stay as they are.",
        ours=True,
    )
    max_resets: Annotated[Int, between(10, 1_000_000)] = key(
        200,
        "How many requests of one connection may be broken off in a row, by the client or for its "
        "mistakes. 20 more are allowed every second, and one for each that is completed; a client beyond "
        "that loses its connection. A tunnel agent allows its server, which forwards the requests of many "
        "clients, 10,000, and 1,000 more every second.",
        ours=True,
    )
    max_control_frames: Annotated[Int, between(10, 10_000_000)] = key(
        1000,
        "How many frames that serve no request (such as PING, SETTINGS and PRIORITY) a client may send in "
        "a row. 50 more are allowed every second, and some for each frame that does; a client beyond that "
        "loses its connection.",
        ours=True,
    )


class RpcOptions(Model):
    """Limits of RPC protocols."""

    max_frame_size: Annotated[Int, between(1024, 2**30)] = key(
        _FRAME_SIZE,
        "The most bytes that a request or a response may have. On connections of tunnel agents there may be "
        "16 KiB more, for what the other end adds.",
        ours=True,
    )


class BoltOptions(RpcOptions):
    """Limits and habits of bolt and boltv2."""

    enable_bolt_goaway: Bool = key(
        False,
        "Whether to tell clients that the process is stopping, so that they send further requests elsewhere. "
        "Clients must know what that means.",
    )


class ProtocolOptions(Model):
    """
    Options by protocol.

    With a single protocol its options may also stand here directly.
    """

    http1: Http1Options = key(Http1Options(), "Options of HTTP/1.", name="Http1")
    http2: Http2Options = key(Http2Options(), "Options of HTTP/2.", name="Http2")
    bolt: BoltOptions = key(BoltOptions(), "Options of bolt and boltv2.")
    dubbo: RpcOptions = key(RpcOptions(), "Options of dubbo.")
    xprotocols: Mapping[str, Mapping[str, Any]] = key(
        {},
        "Options of plug-ins' protocols, by the protocol's name; max_frame_size is known to all of them.",
        ours=True,
    )
    sub_protocol: Text = key("", 'The protocols that "X" as downstream_protocol stands for, with commas.')


class ProxyConfig(Model):
    """
    Requests: parsed, routed, forwarded.

    @ivar router_config_name: the name of a L{RouterConfig}.
    """

    name: Text = key("", "A name for humans.")
    downstream_protocol: Text = key(
        "",
        "What clients speak: a protocol, or several with commas, which are told apart by the first "
        'bytes of a connection; "Auto" for all that there are; "X" for those in sub_protocol.',
        required=True,
    )
    upstream_protocol: Text = key(
        "",
        "What hosts speak.",
        acted=False,
        why=UPSTREAM_UNUSED,
        harmless=UPSTREAM_PROTOCOLS,
    )
    router_config_name: Text = key(
        "", "The router that decides on each request; without one, every request is answered with 404."
    )
    router_handler_name: Text = key(
        "",
        "An extension that makes routes.",
        acted=False,
        protects=True,
        why="there are no extensions that make routes: they would be those of router_config_name",
    )
    fallback_for_unknown_protocol: Bool = key(
        False,
        'With "Auto" or several protocols: whether connections that speak none of them go to the next filter '
        "instead of being closed.",
    )
    validate_clusters: Free = key(
        None,
        "Whether clusters must exist.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: clusters that there are not are warned of",
    )
    concurrency_num: Int = key(
        0,
        "How many requests run at once.",
        acted=False,
        quiet=True,
        why="not acted on: requests take no threads that could be too many",
    )
    trusted_proxies: tuple[Believed, ...] = key(
        (),
        "The addresses of clients, and ranges of them, that are proxies of one's own. What they say of their "
        "requests is believed: X-Forwarded-..., X-Real-IP and Forwarded, x-mosn-... and times in RPC frames. "
        "Requests of others go on without these fields, and their frames can make a time shorter only. Unix "
        'sockets and the connections of tunnel agents are believed anyhow; "*" is everybody, as in MOSN.',
        ours=True,
        protects=True,
    )
    sni_check: Literal["demands", "always", "never"] = key(
        "demands",
        "Which requests over TLS are answered with 421 as they name another host than the handshake of their "
        'connection: those for which a certificate would have been demanded that was not ("demands"), all '
        '("always"), or none ("never", as in MOSN).',
        ours=True,
        protects=True,
    )
    error_details: Bool = key(
        False,
        "Whether answers say what went wrong behind this listener, with names of clusters, hosts and their "
        "number: for development. If not, they have a number, and the line of the log with that number says "
        "it. Clients are always told what is wrong with their requests.",
        ours=True,
    )
    abort_on_half_close: Bool = key(
        False,
        "Whether a client that closes its sending side is taken for one that is gone, so that its requests "
        "are broken off. If not, what it has asked for is answered.",
        ours=True,
    )
    stream_idle_timeout: Span = key(
        STREAM_IDLE,
        "After how long without a byte in either direction a request that is under way is broken off, "
        "unless its route says otherwise; 0 means never. A byte counts when the other side has taken it, so "
        "that a client that is slow is never broken off, but one that stands still is.",
        ours=True,
    )
    request_timeout: Span = key(
        0.0,
        "How long it may take until all of a request has come, with its body, if no response has begun "
        "before; 0 means any time, as long as something comes now and then. It bounds what clients can "
        "hold open with a byte now and then, and any upload over a slow line as well. What waits because "
        "the host does not take it is not held against the client.",
        ours=True,
    )
    upgrade_idle_timeout: Span | None = key(
        None,
        "The same as stream_idle_timeout for what upgraded requests carry, such as WebSockets. Absent: "
        "connection_idle_timeout of the listener if that is given, else 1h.",
        ours=True,
    )
    timeout_includes_response: Bool = key(
        False,
        "Whether the timeout of a route bounds the whole response, up to its end, as in MOSN, unless the "
        "route says otherwise. If not, it bounds the time until the response begins.",
        ours=True,
    )
    extend_config: ProtocolOptions = key(ProtocolOptions(), "Options by protocol.")

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols of clients; C{"X"} is replaced by its sub-protocols, C{"Auto"} is not."""
        text = self.downstream_protocol
        if text == "X":
            text = self.extend_config.sub_protocol
        return tuple(dict.fromkeys(name for name in text.split(",") if name))

    @property
    def detects(self) -> bool:
        """Whether the protocol of a connection is detected by its first bytes."""
        return len(self.protocols) > 1 or "Auto" in self.protocols

    @property
    def falls_back(self) -> bool:
        """Whether connections of other protocols are passed to the next filter."""
        return self.fallback_for_unknown_protocol and self.detects

    def rpc_options(self, protocol: str) -> Mapping[str, Any]:
        """Return the options of an RPC protocol, including C{max_frame_size}."""
        options = self.extend_config
        known: RpcOptions = options.dubbo if protocol == "dubbo" else RpcOptions()
        if protocol in ("bolt", "boltv2"):
            known = options.bolt
        return {**known.model_dump(), **options.xprotocols.get(protocol, {})}

    @property
    def http1(self) -> Http1Options:
        """The options of HTTP/1."""
        return self.extend_config.http1

    @property
    def http2(self) -> Http2Options:
        """The options of HTTP/2."""
        return self.extend_config.http2
