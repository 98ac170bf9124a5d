"""Fields that tell the next hop about the previous one: C{Via} and C{X-Forwarded-...}."""

from __future__ import annotations

__all__ = ["ForwardedBy"]

from typing import TYPE_CHECKING

from reverseproxy.wire.http.fields import Headers

if TYPE_CHECKING:
    from reverseproxy.wire.http.message import Request


class ForwardedBy:
    """
    Adds these fields to each request of one connection.
    """

    __slots__ = ("_mode", "_remote", "_scheme", "_via")

    def __init__(self, via: str, x_forwarded: str, remote: str, scheme: str) -> None:
        """
        @param via: the pseudonym added to Via; empty for none.
        @param x_forwarded: C{"off"}, C{"append"} or C{"replace"}.
        @param remote: the client's address without its port.
        @param scheme: C{"http"} or C{"https"}: how the client reached us.
        """
        self._via = via.encode("ascii", "replace")
        self._mode = x_forwarded
        self._remote = remote.encode("utf-8", "replace")
        self._scheme = scheme.encode("ascii")

    def __bool__(self) -> bool:
        return bool(self._via) or self._mode != "off"

    def rewrite(self, head: Request) -> Headers:
        """Return the fields of the forwarded request."""
        headers = head.headers
        if self._via:
            version = b"1.1 " if head.http11 else b"1.0 "
            headers = _add_to_list(headers, b"Via", version + self._via, True)
        if self._mode != "off":
            append = self._mode == "append"
            headers = _add_to_list(headers, b"X-Forwarded-For", self._remote, append)
            headers = _set(headers, b"X-Forwarded-Proto", self._scheme, append)
            headers = _set(headers, b"X-Forwarded-Host", head.asked_host, append)
        return headers


def _add_to_list(headers: Headers, name: bytes, value: bytes, append: bool) -> Headers:
    """Add C{value} to the list field C{name}, or replace it if not C{append}."""
    wanted = name.lower()
    values = [old.strip(b" \t") for field, old in headers if field.lower() == wanted] if append else []
    kept = [field for field in headers if field[0].lower() != wanted]
    kept.append((name, b", ".join([*filter(None, values), value])))
    return kept


def _set(headers: Headers, name: bytes, value: bytes, keep: bool) -> Headers:
    """Set a field that is no list, unless it is there and C{keep}."""
    wanted = name.lower()
    if keep and any(field.lower() == wanted for field, _ in headers):
        return headers
    kept = [field for field in headers if field[0].lower() != wanted]
    kept.append((name, value))
    return kept
