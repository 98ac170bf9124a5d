"""
The command C{reverseproxy}: what people type, beside C{twistd reverseproxy}.

It has no way of its own to run or to read anything: each subcommand calls what
is below it.  C{cli} has the command line itself, and one module each the work
of one subcommand, which imports what it needs when it is called, so that
completion in a shell does not wait for Twisted.
"""

from __future__ import annotations

__all__ = ["main"]

from reverseproxy.command.cli import main
