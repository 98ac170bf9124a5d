"""
Reverse tunnels on Twisted, wire-compatible with MOSN's reverse channel.

What programs of others may use stands in C{__all__} and is documented in
C{docs/embedding.rst}; see L{reverseproxy.embedding}.  All other names may change.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "Event",
    "Metric",
    "Problem",
    "Proxy",
    "Report",
    "State",
    "__version__",
    "fast_reactor",
]

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverseproxy.embedding import (
        ConfigError,
        Event,
        Metric,
        Problem,
        Proxy,
        Report,
        State,
        fast_reactor,
    )

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is asked for, and not before: Twisted's plug-ins import this package in every program."""
    if name in __all__:
        return getattr(import_module("reverseproxy.embedding"), name)
    raise AttributeError(f"module 'reverseproxy' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is to be asked for."""
    return sorted({*globals(), *__all__})
