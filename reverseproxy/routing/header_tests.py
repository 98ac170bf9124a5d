"""Conditions on the headers of a request, for other code than rules."""

from __future__ import annotations

__all__ = ["header_test"]

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reverseproxy.routing.matching import HeaderTest, Test, with_headers
from reverseproxy.routing.patterns import compile_search

if TYPE_CHECKING:
    from reverseproxy.config.models import HeaderMatcherConfig


def header_test(matchers: Sequence[HeaderMatcherConfig]) -> Test:
    """
    Make a test of headers, all of which must match; as in a rule with a path,
    C{method} is the request method.

    @raise PatternError: if a regular expression is malformed.
    """
    method: str | None = None
    headers: list[tuple[str, HeaderTest]] = []
    for each in matchers:
        if each.name == "method":
            method = each.value
        else:
            matches = compile_search(each.value) if each.regex else each.value.__eq__
            headers.append((each.name.lower(), matches))
    return with_headers(None, method, headers)
