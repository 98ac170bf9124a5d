"""Types of header fields that several models share."""

from __future__ import annotations

__all__ = ["HeaderMatcherConfig", "HeaderName"]

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Bool, Text, quote

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 5.1


def _header_name(text: str) -> str:
    if not text:
        raise ValueError("is empty; write the name of a header")
    if not _HEADER_NAME.fullmatch(text):
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
