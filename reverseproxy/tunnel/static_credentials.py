"""
The credential policy C{static} on the agent, which sends a token that an operator has issued.

The agent's C{credential_config} has one of C{file} (a path), C{token} (the token itself) and C{env}
(the name of an environment variable).  It is looked up again for each dial.
"""

from __future__ import annotations

__all__ = ["StaticCredentialPlugin"]

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from reverseproxy.errors import CredentialMissing
from reverseproxy.interfaces import ICredentialCheck, ICredentialPlugin, ICredentialSource
from reverseproxy.tunnel.plugin_options import Options
from reverseproxy.tunnel.watched_files import read_text
from reverseproxy.wire.mosn.frames import MAX_PAYLOAD

_KEYS: Final = ("file", "token", "env")


@implementer(ICredentialSource, ICredentialCheck)
class _LookedUp:
    """A credential that is looked up for each dial."""

    def __init__(self, look_up: Callable[[], str]) -> None:
        self._look_up = look_up

    def fetch(self, cluster: str) -> Deferred[str]:
        """Look the credential up; see L{ICredentialSource.fetch}."""
        return maybeDeferred(self._look_up)

    def check(self) -> None:
        """Raise if there is no credential now; see L{ICredentialCheck.check}."""
        self._look_up()


def _from_file(path: str) -> str:
    try:
        # A larger one does not fit into a frame.
        text = read_text(path, MAX_PAYLOAD)
    except OSError as error:
        raise CredentialMissing(f"can't read the credential from {path}: {error.strerror}") from None
    except ValueError as error:
        raise CredentialMissing(f"can't use the credential: {error}") from None
    # Editors and echo append one line end; further ones may belong to the credential.
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise CredentialMissing(f"the file {path} holds no credential, it is empty")
    return text


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        state = "not set" if value is None else "empty"
        raise CredentialMissing(f"the environment variable {name} holds no credential, it is {state}")
    return value


@implementer(ICredentialPlugin)
class StaticCredentialPlugin:
    """The policy C{static} on the agent; see the module."""

    name: ClassVar[str] = "static"

    def build(self, config: Mapping[str, Any]) -> ICredentialSource:
        """
        Make a source.

        @param config: C{file}, C{token} or C{env}.
        @raise OptionsError: if it is invalid. A missing file or variable is not an error: it may come
            later, and is looked up for each dial.
        """
        options = Options(config, _KEYS)
        key = options.only_key(_KEYS)
        value = options.text(key) if key else ""
        options.raise_errors()
        if key == "file":
            return _LookedUp(lambda: _from_file(value))
        if key == "env":
            return _LookedUp(lambda: _from_environment(value))
        return _LookedUp(lambda: value)
