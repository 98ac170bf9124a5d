"""Build tracing, if it is configured and its libraries are installed."""

from __future__ import annotations

__all__ = ["build_tracing"]

from importlib import import_module
from typing import Any

from reverseproxy.clock import wall_time
from reverseproxy.config.models import TracingOptions
from reverseproxy.errors import ConfigError
from reverseproxy.problems import PART, Problem
from reverseproxy.tracing.interfaces import ITracing


def build_tracing(
    options: TracingOptions, reactor: Any, module: str = "reverseproxy.tracing.otel"
) -> ITracing:
    """
    Make the tracing driver; nothing is sent yet.

    @param module: the name of the module that makes it.
    @raise ConfigError: if OpenTelemetry is not installed.
    """
    try:
        found = import_module(module)
    except ImportError as error:
        raise ConfigError(
            Problem.at(PART, f"OpenTelemetry is not installed ({error}): pip install 'reverseproxy[tracing]'")
        ) from None
    tracing: ITracing = found.OtelTracing(options, reactor, wall_time)
    return tracing
