"""
The dashboard's files: they come with the package, hold no secrets, and are the same for everybody.

Whoever can connect gets them, so that there is a place to enter a token in; all
that they show comes from the API, which asks for it.
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
"""What a browser may do for the page: run and load what is here, and talk to us, and nothing else."""

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
"""What there is."""


@lru_cache(len(FILES))
def _read(name: str) -> tuple[bytes, str]:
    """
    Read a file, once.

    @return: what is in it, and what it is known by as long as it does not change.
    """
    content = files("reverseproxy.admin").joinpath("dashboard", name).read_bytes()
    return content, f'"{sha256(content).hexdigest()[:32]}"'


def page(call: Call, name: str) -> Reply:
    """
    Answer with a file.

    @raise ApiProblem: if there is none of this name, or the method is another one.
    """
    if name not in FILES:
        raise ApiProblem(404, "no such path")
    if call.method not in ("GET", "HEAD"):
        raise ApiProblem(405, "use GET", Allow="GET, HEAD")
    content, tag = _read(name)
    # It is asked for each time, as it may be of another version when the process has been started anew.
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
    """Whether a browser asks, rather than a script."""
    return "text/html" in call.headers("accept").lower()
