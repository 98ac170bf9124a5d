"""Errors of the subcommands that need no configuration file."""

from __future__ import annotations

__all__ = ["InstantProblem"]


class InstantProblem(Exception):
    """The command line asks for something that can't be done; the message says why."""
