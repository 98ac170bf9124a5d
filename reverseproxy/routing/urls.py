"""Writing paths, hosts and queries so that nothing gets out of its place."""

from __future__ import annotations

__all__ = ["quote_host", "quote_path", "quote_query"]

from typing import Final
from urllib.parse import quote

# What stays as it is: in a path net/url's choice, as its String() is what MOSN
# sends; in a host RFC 3986's; in a query anything printable, as it is not ours
# to rewrite.
_PATH_SAFE: Final = "$&+,/:;=@"
_HOST_SAFE: Final = "!$&'()*+,;=:[]"
_QUERY_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F))


def quote_path(text: str) -> str:
    """Percent-encode a path; it begins with a slash in any case."""
    return _quote(text if text[:1] == "/" else "/" + text, _PATH_SAFE)


def quote_host(text: str) -> str:
    """Percent-encode a host, perhaps with a port."""
    return _quote(text, _HOST_SAFE)


def quote_query(text: str) -> str:
    """Percent-encode what can't stand in a query at all."""
    return _quote(text, _QUERY_SAFE)


def _quote(text: str, safe: str) -> str:
    """Percent-encode; bytes that are not UTF-8 keep their value."""
    try:
        return quote(text, safe=safe, errors="surrogateescape")
    except UnicodeEncodeError:
        return quote(text, safe=safe, errors="replace")
