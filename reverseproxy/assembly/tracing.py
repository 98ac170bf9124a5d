"""Traces, if the configuration wants them, and what they take is there."""

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
    Make what makes traces; nothing is sent yet.

    @param module: what makes it.
    @raise ConfigError: if that is not installed.
    """
    try:
        found = import_module(module)
    except ImportError as error:
        raise ConfigError(
            Problem.at(PART, f"OpenTelemetry is not installed ({error}): pip install 'reverseproxy[tracing]'")
        ) from None
    tracing: ITracing = found.OtelTracing(options, reactor, wall_time)
    return tracing
