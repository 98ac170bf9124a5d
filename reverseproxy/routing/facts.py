"""The facts of a request that routing depends on."""

from __future__ import annotations

__all__ = ["Headers", "Lookup", "RouteInput", "normalize_path", "split_host"]

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

Headers = list[tuple[bytes, bytes]]
"""Fields in order, names in the case they came in."""

Lookup = Callable[[str], str | None]
"""Returns a value by its name; L{None} if there is none."""


@dataclass(slots=True)
class RouteInput:
    """
    The facts of a request that routing depends on.

    Bytes are decoded as UTF-8 with C{surrogateescape}.

    @ivar method: the request method as sent; empty for RPC.
    @ivar path: the path without the query, in the form of L{normalize_path};
        rules that look at the path never match an empty one, which is what RPC
        has.
    @ivar query: what follows the C{?}, without it; empty for none.
    @ivar host: the Host header or C{:authority}, port included, as sent; empty
        for RPC.
    @ivar headers: looks a header up by its lower-case name; L{None} when the
        request has no such header.  Called only when a rule asks for one.
    @ivar scheme: C{"http"} or C{"https"}, of the client's connection.
    @ivar protocol: MOSN's name of the client's protocol, such as C{"Http1"},
        C{"Http2"} or C{"bolt"}.
    @ivar variables: looks up MOSN's other variables, by their names in
        L{reverseproxy.routing.variables.EXCHANGE_VARIABLES}, as they are when it is
        called; L{None} if there are none.
    """

    method: str
    path: str
    query: str
    host: str
    headers: Lookup
    scheme: str = "http"
    protocol: str = "Http1"
    variables: Lookup | None = None

    @classmethod
    def of_rpc(cls, headers: Lookup, protocol: str, variables: Lookup | None = None) -> RouteInput:
        """
        Make the facts of a request that has headers only.

        Rules with a path never match it.  As it has no host, it matches a virtual host
        only if the router has none but the default one, as in MOSN.
        """
        return cls("", "", "", "", headers, "", protocol, variables)


def normalize_path(target: str) -> str:
    """
    Bring the path of a request target into the form that rules are compared with.

    As MOSN's HTTP parser does (the C{Path()} of C{valyala/fasthttp}'s C{URI}):
    percent-escapes are decoded, runs of slashes become one, and C{.} and C{..}
    segments are resolved, never above the root.  So a rule for C{/admin} can't
    be evaded with C{/x/../admin} or C{/%61dmin}.  Bytes that are not UTF-8 become
    surrogate escapes.  C{*} (of C{OPTIONS *}) and the empty string are not changed.

    @param target: the path, without query and fragment, as the client sent it.
    @return: the path to put into L{RouteInput.path}.
    """
    if "%" in target:
        raw = target.encode("utf-8", "surrogateescape")
        target = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
    elif "//" not in target and "/." not in target and target[:1] == "/":
        return target
    if not target or target == "*":
        return target
    kept: list[str] = []
    segments = target.split("/")
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    if kept and segments[-1] in ("", ".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def split_host(text: str) -> tuple[str, str] | None:
    """
    Split C{host:port} as MOSN does for domains and Host headers.

    That is Go's C{net.SplitHostPort}, except that the port may be missing.

    @return: host and port; the port is empty if there is none; an IPv6 address
        loses its brackets only when a port follows.  L{None} if the text is no
        such pair, such as a bare IPv6 address.
    """
    head, colon, port = text.rpartition(":")
    if not colon:
        return text, ""
    if text[0] != "[":
        return None if ":" in head or "[" in text or "]" in text else (head, port)
    end = text.find("]")
    if end < 0:
        return None
    rest = text[end + 1 :]
    if rest[:1] != ":":
        return text, ""
    host = text[1:end]
    if rest != ":" + port or "[" in text[1:] or "]" in rest:
        return None
    return host, port
