"""Types of header fields that several models share."""

from __future__ import annotations

__all__ = [
    "HeaderMatcherConfig",
    "HeaderName",
    "HeaderRules",
    "HeaderToAddConfig",
    "HeaderValueConfig",
    "is_header_name",
    "is_header_value",
]

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import (
    Bool,
    Text,
    quote,
)

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 5.1


def is_header_name(text: str) -> bool:
    """Return whether a header can have this name."""
    return _HEADER_NAME.fullmatch(text) is not None


def _header_name(text: str) -> str:
    if not text:
        raise ValueError("is empty; write the name of a header")
    if not is_header_name(text):
        raise ValueError(f"{quote(text)} is not the name of a header")
    return text


HeaderName = Annotated[Text, AfterValidator(_header_name)]


class HeaderMatcherConfig(Model):
    """A demand on one request header."""

    name: Text = key(
        "",
        'The header\'s name, in any case. In a rule with prefix, path or regex, "method" means the request '
        "method.",
        required=True,
    )
    value: Text = key("", "What the header must equal, or match if regex is true.")
    regex: Bool = key(False, "Whether value is a regular expression (RE2), found anywhere in the header.")


# RFC 9110 5.5
_HEADER_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


def is_header_value(text: str) -> bool:
    """Return whether a header can have this value."""
    return _HEADER_VALUE.fullmatch(text) is not None


def _header_value(text: str) -> str:
    if not is_header_value(text):
        raise ValueError(f"{quote(text)} has control characters, which can't be in a header")
    return text


class HeaderValueConfig(Model):
    """A header."""

    name: HeaderName = key("", "The header's name, in any case.", name="key", required=True)
    value: Annotated[Text, AfterValidator(_header_value)] = key(
        "",
        'The value. "%name%" as the whole of it means the value of the MOSN variable "name", such as '
        '"%downstream_remote_address%", or nothing where it has none.',
    )


class HeaderToAddConfig(Model):
    """A header to add."""

    header: HeaderValueConfig = key(HeaderValueConfig(), "The header.", required=True)
    append: Bool = key(
        True,
        "Whether to put the value behind the old one and a comma, if there is one, rather than in its place.",
    )


class HeaderRules(Model):
    """What a router, a virtual host or a route may do to headers."""

    request_headers_to_add: tuple[HeaderToAddConfig, ...] = key(
        (),
        "Headers to add to requests: those of the route, then those of its virtual host, then those of its "
        "router.",
    )
    request_headers_to_remove: tuple[HeaderName, ...] = key(
        (), "Headers to remove from requests, after those of the same level have been added."
    )
    response_headers_to_add: tuple[HeaderToAddConfig, ...] = key(
        (), "Headers to add to responses of hosts, in the same order."
    )
    response_headers_to_remove: tuple[HeaderName, ...] = key(
        (), "Headers to remove from responses of hosts, in the same order."
    )
