"""What the subcommands share: failing, arguments, and the order in which help lists them."""

from __future__ import annotations

__all__ = ["FILE", "OrderedGroup", "fail"]

from typing import NoReturn

import click

FILE = click.Path(readable=False)
"""A configuration; if it can't be read, that is reported as its other problems are."""


def fail(message: str) -> NoReturn:
    """Print a message to standard error, and end with status 1."""
    click.echo(message, err=True)
    raise SystemExit(1)


class OrderedGroup(click.Group):
    """A group whose help lists subcommands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in that order."""
        return list(self.commands)
