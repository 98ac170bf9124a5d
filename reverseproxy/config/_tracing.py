"""C{tracing}: which requests are traced, and where spans are sent."""

from __future__ import annotations

__all__ = ["DRIVER", "TracingConfig", "TracingOptions", "check_tracing"]

from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._headers import is_header_name, is_header_value
from reverseproxy.config._nodes import Location
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import Bool, Free, Number, Text, describe, quote, split_address
from reverseproxy.config.diagnostics import Diagnostics

DRIVER: Final = "otel"
"""The only supported driver of MOSN's."""

FORMATS: Final = ("w3c", "b3", "b3multi")

_PLACE: Final[Location] = ("tracing",)

_PATH: Final = "/v1/traces"
"""The default path of OTLP receivers."""


def _share(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{value:g} is no share; write a number from 0 to 1")
    return value


def _format(value: str) -> str:
    if value not in FORMATS:
        raise ValueError(f"{quote(value)} is not known; write {', '.join(FORMATS)}")
    return value


def _texts(value: object) -> object:
    """Require an object whose values are texts."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError(f"{describe(value)} is not an object of texts")
    return value


Texts = Annotated[Free, AfterValidator(_texts)]


class TracingOptions(Model):
    """What the driver C{otel} does."""

    service_name: Text = key("reverseproxy", "What this process is called in traces (service.name).")
    report_method: Text = key(
        "http",
        "Where spans go: http, OTLP over HTTP to endpoint; or console, JSON on standard output.",
        choices=("http", "console"),
        later={
            "grpc": "spans are sent by OTLP over HTTP, to another port of the same receivers, mostly 4318"
        },
        fallback="http",
    )
    endpoint: Text = key(
        "127.0.0.1:4318",
        "The receiver: host:port, as in MOSN, or a whole URL such as https://collector.example/v1/traces.",
    )
    config_map: Texts = key(
        {}, "Attributes of the resource: what is said of this process in each batch of spans."
    )
    headers: Texts = key({}, "Header fields for the receiver, such as authorization.", ours=True, secret=True)
    sample_rate: Annotated[Number, AfterValidator(_share)] = key(
        1.0,
        "Which share of requests is traced that do not come with a decision of their own: from 0 to 1.",
        ours=True,
    )
    accept: Text = key(
        "trusted",
        "Whose traces are continued: trusted, those of tunnel servers, of Unix sockets and of the proxy "
        "filter's trusted_proxies; all; or none.",
        choices=("trusted", "all", "none"),
        fallback="trusted",
        ours=True,
    )
    propagation: tuple[Annotated[Text, AfterValidator(_format)], ...] = key(
        ("w3c",),
        "How hosts are told of traces: w3c (traceparent), b3 (one field), b3multi (X-B3-...); and as the "
        "client has told it, in any case.",
        ours=True,
    )

    @property
    def url(self) -> str:
        """The URL that spans are sent to."""
        if "://" in self.endpoint:
            return self.endpoint
        return f"http://{self.endpoint}{_PATH}"


class TracingConfig(Model):
    """Distributed tracing."""

    enable: Bool = key(False, "Whether there are traces.")
    tracer: Text = key(
        "",
        "Which tracer of a driver to use.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: there is one for each protocol",
    )
    driver: Text = key(
        DRIVER,
        f"How traces are made: {DRIVER}, OpenTelemetry, which takes pip install 'reverseproxy[tracing]'.",
    )
    config: TracingOptions = key(TracingOptions(), "Options of the driver.")

    @property
    def options(self) -> TracingOptions | None:
        """The options of the driver; L{None} if nothing is traced."""
        return self.config if self.enable and self.driver.lower() == DRIVER else None


def check_tracing(tracing: TracingConfig | None, tree: Tree, findings: Diagnostics) -> None:
    """
    Check keys that depend on others.

    @param tracing: the model, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets errors and warnings.
    """
    if tracing is None or not tracing.enable:
        return
    if tracing.options is None:
        findings.warn(
            tree.locate((*_PLACE, "driver")),
            f"{quote(tracing.driver)} is not supported, so that nothing is traced; write {DRIVER}, which "
            "sends spans by OTLP over HTTP, and takes W3C's and B3's header fields",
        )
        return
    for name, value in tracing.options.headers.items():
        # Values may be secrets.
        place = tree.locate((*_PLACE, "config", "headers", name))
        if not is_header_name(name):
            findings.error(place, "is not the name of a header")
        elif not is_header_value(value):
            findings.error(place, "has control characters, which can't be in a header")
    endpoint = tracing.options.endpoint
    try:
        if "://" not in endpoint:
            split_address(endpoint)
        elif urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
            raise ValueError(f"{quote(endpoint)} is no URL of http or https")
    except ValueError as error:
        findings.error(tree.locate((*_PLACE, "config", "endpoint")), str(error))
