"""Refuse requests that web pages of other sites make an operator's browser send."""

from __future__ import annotations

__all__ = ["check_host", "check_origin"]

from reverseproxy.addresses import is_loopback
from reverseproxy.admin.messages import ApiProblem, Call


def check_host(call: Call) -> None:
    """
    Refuse requests to another host than this machine (DNS rebinding).

    Without authentication, the API listens on a loopback address, so that a C{Host} other than a loopback
    name belongs to a web page whose name was made to resolve to that address.

    @raise ApiProblem: if it is another one.
    """
    host = call.headers("host")
    name = host if host.endswith("]") else host.rpartition(":")[0] if host[-6:].count(":") else host
    if host and not is_loopback(name.lower()):
        raise ApiProblem(421, "unknown Host: use localhost or 127.0.0.1")


def check_origin(call: Call) -> None:
    """
    Refuse changes that a page of another site requests (CSRF).

    @raise ApiProblem: if it is such a request.
    """
    site, origin = call.headers("sec-fetch-site"), call.headers("origin")
    if site not in ("", "none", "same-origin") or (
        origin and origin.partition("://")[2] != call.headers("host")
    ):
        raise ApiProblem(403, "cross-site requests can't change anything")
