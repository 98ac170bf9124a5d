"""Percent-encoding of paths, hosts and queries of URLs."""

from __future__ import annotations

__all__ = ["quote_host", "quote_path", "quote_query"]

from typing import Final
from urllib.parse import quote

# Characters that are not encoded: in a path those of Go's net/url, whose String() MOSN uses; in a host
# those of RFC 3986; in a query everything printable, as queries are forwarded as they came.
_PATH_SAFE: Final = "$&+,/:;=@"
_HOST_SAFE: Final = "!$&'()*+,;=:[]"
_QUERY_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F))


def quote_path(text: str) -> str:
    """Percent-encode a path, and put a slash in front if there is none."""
    return _quote(text if text[:1] == "/" else "/" + text, _PATH_SAFE)


def quote_host(text: str) -> str:
    """Percent-encode a host, perhaps with a port."""
    return _quote(text, _HOST_SAFE)


def quote_query(text: str) -> str:
    """Percent-encode what a query can't contain."""
    return _quote(text, _QUERY_SAFE)


def _quote(text: str, safe: str) -> str:
    """Percent-encode; bytes that are not UTF-8 keep their value."""
    try:
        return quote(text, safe=safe, errors="surrogateescape")
    except UnicodeEncodeError:
        return quote(text, safe=safe, errors="replace")
