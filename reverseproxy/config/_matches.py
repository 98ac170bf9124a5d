"""The conditions of routes."""

from __future__ import annotations

__all__ = ["VARIABLE_MODELS", "MatchConfig", "VariableMatcherConfig"]

from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._headers import HeaderMatcherConfig
from reverseproxy.config._values import (
    Free,
    Regex,
    Text,
    quote,
)

VARIABLE_MODELS: Final = ("and", "or")


def _variable_model(text: str) -> str:
    if text.lower() not in ("", *VARIABLE_MODELS):
        raise ValueError(f'{quote(text)} is not allowed; write "and" or "or"')
    return text.lower() or VARIABLE_MODELS[0]


class VariableMatcherConfig(Model):
    """A demand on a MOSN variable."""

    name: Text = key(
        "",
        'The variable, such as "x-mosn-method", "x-mosn-querystring", "request_header_NAME" or '
        '"Http1_cookie_NAME". One without a value counts as empty.',
        required=True,
    )
    value: Text = key("", "What it must equal; empty for anything that regex takes.")
    regex: Regex = key("", "A regular expression (RE2) to be found in it; counts rather than value.")
    model: Annotated[Text, AfterValidator(_variable_model)] = key(
        VARIABLE_MODELS[0],
        'What ties this demand to the next one: "and" or "or". A rule matches if all demands up to an "or", '
        "or up to the end, hold.",
    )


class MatchConfig(Model):
    """
    Which requests a rule takes.

    The first of prefix, path, regex, variables and dsl_expressions that is not
    empty counts; without any, the headers alone decide.
    """

    prefix: Text = key("", "Take paths that begin with this text, in exactly this case.")
    path: Text = key("", "Take this path only, in any case.")
    regex: Regex = key("", "Take paths in which this regular expression (RE2) is found.")
    headers: tuple[HeaderMatcherConfig, ...] = key(
        (),
        'Headers that must all match too. A single header "service" on its own with the value ".*" takes '
        "every request that has this header.",
    )
    variables: tuple[VariableMatcherConfig, ...] = key((), "MOSN variables that must match.")
    dsl_expressions: Free = key(
        None,
        "Expressions that must hold.",
        acted=False,
        protects=True,
        why="expressions are not supported: the rule would take no requests, but leave them to the next ones",
    )
