"""Build the valid parts of an invalid configuration, to find everything that is wrong at once."""

from __future__ import annotations

__all__ = ["examine"]

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from twisted.logger import Logger

from reverseproxy.assembly.assembly import Assembly
from reverseproxy.assembly.world import World
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.invalid import InvalidDocument
from reverseproxy.config.models import Config
from reverseproxy.errors import ConfigError
from reverseproxy.problems import DOCUMENT

log = Logger()


def examine(
    error: ConfigError,
    reactor: Any,
    random: Random,
    further: Callable[[Config, Diagnostics], object] = lambda config, findings: None,
    strict: bool = False,
) -> ConfigError:
    """
    Add what only building shows, such as a certificate that can't be used, to the errors of a document.

    Nothing is bound or dialled, and no log file is created.

    @param error: why a document could not be loaded.
    @param further: adds more of what is wrong with a configuration.
    @param strict: whether what is missing, but may be added later, is an error rather than a warning.
    @return: the same error if the document has no parts, as it can't be parsed.
    """
    if not isinstance(error, InvalidDocument):
        return error
    file = error.file
    findings = Diagnostics(file)
    try:
        further(error.usable, findings)
        _build(error.usable, reactor, random, file, findings)
    except Exception:
        # What is known to be wrong counts more than what is not found of the rest.
        log.failure("while looking for further errors in {file}", file=file)
    missing = findings.missing
    errors, warnings = findings.errors, findings.warnings
    return (
        error.joined((*errors, *missing), warnings) if strict else error.joined(errors, (*warnings, *missing))
    )


def _build(config: Config, reactor: Any, random: Random, file: str, findings: Diagnostics) -> None:
    """Build a configuration without using it; what is wrong is added to C{findings}."""
    assembly = Assembly(World(reactor, random, file, True, None), config, dry=True)
    assembly.discard()
    for problem in assembly.findings.errors:
        findings.add(problem)
    for warning in assembly.findings.warnings:
        findings.add_warning(warning)
    for problem in assembly.findings.missing:
        findings.miss(problem.place, problem.reason)
    if assembly.has_admin and config.admin is not None:
        from reverseproxy.admin.service import load_credentials

        findings.attempt(DOCUMENT / "admin", partial(load_credentials, config.admin))
