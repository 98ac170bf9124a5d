"""Reverse tunnels on Twisted, wire-compatible with MOSN's reverse channel."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
