"""
The dashboard's static files.

They are part of the package and contain no secrets, so that every client gets
them without a token: the page has the field in which to enter one.  All data
comes from the API, which authenticates its callers.
"""

from __future__ import annotations

__all__ = ["FILES", "POLICY", "page", "wants_page"]

from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from reverseproxy.admin.messages import ApiProblem, Call, Reply

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's content security policy: scripts, styles and connections of this server only."""

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}

FILES: Final = (
    "index.html",
    "style.css",
    "app.js",
    "actions.js",
    "api.js",
    "configuration.js",
    "dom.js",
    "fleet.js",
    "panels.js",
)
"""The names of the files."""


@lru_cache(len(FILES))
def _read(name: str) -> tuple[bytes, str]:
    """
    Read a file; the result is cached.

    @return: its content, and its entity tag.
    """
    content = files("reverseproxy.admin").joinpath("dashboard", name).read_bytes()
    return content, f'"{sha256(content).hexdigest()[:32]}"'


def page(call: Call, name: str) -> Reply:
    """
    Answer a request for a file.

    @raise ApiProblem: if there is no file with this name, or the method is neither C{GET} nor C{HEAD}.
    """
    if name not in FILES:
        raise ApiProblem(404, "no such path")
    if call.method not in ("GET", "HEAD"):
        raise ApiProblem(405, "use GET", Allow="GET, HEAD")
    content, tag = _read(name)
    # Browsers must validate it each time, as the process may have been upgraded meanwhile.
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    content_type = _TYPES[name.rpartition(".")[2]]
    known = call.headers("if-none-match")
    if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
        return Reply(304, b"", content_type, headers)
    return Reply(200, content, content_type, headers)


def wants_page(call: Call) -> bool:
    """Whether the client accepts HTML, as browsers do."""
    return "text/html" in call.headers("accept").lower()
