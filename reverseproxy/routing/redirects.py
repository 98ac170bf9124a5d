"""The targets of redirects."""

from __future__ import annotations

__all__ = ["compile_redirect"]

import re
from typing import TYPE_CHECKING, Final

from reverseproxy.routing.results import Redirect
from reverseproxy.routing.urls import quote_host, quote_path, quote_query

if TYPE_CHECKING:
    from reverseproxy.config.diagnostics import Diagnostics
    from reverseproxy.config.models import PerFilterConfig, RedirectConfig
    from reverseproxy.routing.facts import RouteInput
    from reverseproxy.routing.matching import Action
from reverseproxy.problems import Place

_SCHEME: Final = re.compile(r"[a-z][a-z0-9.+-]*")
_STATUSES: Final = frozenset({301, 302, 303, 307, 308})


def compile_redirect(
    config: RedirectConfig,
    path: Place,
    notes: Diagnostics,
    filters: PerFilterConfig | None = None,
    names: tuple[str, str] = ("", ""),
) -> Action:
    """
    Compile C{redirect}.

    @param names: of the rule, and of its virtual host.
    """
    status = config.response_code or 301
    if status not in _STATUSES:
        allowed = ", ".join(str(code) for code in sorted(_STATUSES))
        notes.error(path / "response_code", f"{status} is none of {allowed} or 0 for 301")
    scheme = config.scheme_redirect.lower()
    if scheme and not _SCHEME.fullmatch(scheme):
        notes.error(path / "scheme_redirect", f"{scheme!r} is not a URL scheme")
    return _redirection(status, scheme, config.host_redirect, config.path_redirect, (filters, *names))


def _redirection(
    status: int, scheme: str, host: str, path: str, rest: tuple[PerFilterConfig | None, str, str]
) -> Action:
    """
    Make the function that builds a redirect.

    What is empty is taken from the request; the query always is.
    """

    def redirect(facts: RouteInput) -> Redirect:
        new_scheme = scheme or facts.scheme
        new_host = host or facts.host
        if new_scheme != facts.scheme:
            # The old scheme's default port would be wrong for the new one.
            name, _, port = new_host.rpartition(":")
            if name and (new_scheme, port) in (("http", "443"), ("https", "80")):
                new_host = name
        location = f"{new_scheme}://{quote_host(new_host)}{quote_path(path or facts.path)}"
        if facts.query:
            location += "?" + quote_query(facts.query)
        return Redirect(status, location, *rest)

    return redirect
