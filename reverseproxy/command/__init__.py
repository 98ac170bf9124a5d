"""
The command C{reverseproxy}: what people type, beside C{twistd reverseproxy}.

It has no way of its own to run or to read anything: each subcommand calls what
is below it.  C{cli}, C{asking} and the modules whose names end in C{_commands} have the
subcommands and their options; other modules do the work, and are imported when a
subcommand is called, so that completion in a shell does not wait for Twisted.
"""

from __future__ import annotations

__all__ = ["main"]

from reverseproxy.command.cli import main
