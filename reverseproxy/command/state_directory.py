"""The directory in which certificates, tokens and configurations are kept."""

from __future__ import annotations

__all__ = ["FIRST_AGENT", "StateDirectory", "state_directory"]

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from reverseproxy.command.certificates import make_certificate
from reverseproxy.command.errors import InstantProblem
from reverseproxy.command.tokens import TokenFile, TokenProblem

if TYPE_CHECKING:
    from reverseproxy.command.instant import PublishedService

FIRST_AGENT: Final = "first"
"""The agent that gets the token which is made at the first start of a server without services."""


def state_directory() -> Path:
    """Return the default of the option C{--state}."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "reverseproxy"


class StateDirectory:
    """Files that are kept from one start to the next, in a directory that only its owner may read."""

    def __init__(self, directory: Path) -> None:
        """
        @raise InstantProblem: if there can't be such a directory.
        """
        self.directory = directory.absolute()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InstantProblem(f"{directory} can't be made: {error.strerror}") from None

    def certificate(self) -> x509.Certificate:
        """
        The server's certificate, which is made if there is none.

        @raise InstantProblem: if it can't be read or written.
        """
        try:
            if not self.path("server.pem").exists():
                chain, key = make_certificate()
                self._write("server.key", key)
                self._write("server.pem", chain)
            return x509.load_pem_x509_certificate(self.path("server.pem").read_bytes())
        except OSError as error:
            raise InstantProblem(f"{self.directory} can't be used: {error.strerror}") from None
        except ValueError:
            raise InstantProblem(f"{self.path('server.pem')} is no certificate: move it away") from None

    def new_tokens(self, services: Iterable[PublishedService]) -> dict[str, str]:
        """
        Make a token for each service whose agent has none.

        @return: the new ones, by the names of the services.
        @raise InstantProblem: if they can't be kept.
        """
        path = self.path("tokens.json")
        file, made = TokenFile(str(path)), {}
        try:
            known = file.agents() if path.exists() else set()
            for service in services:
                if service.name not in known:
                    made[service.name] = file.add(service.name, [service.name], None, False, None)
        except TokenProblem as problem:
            raise InstantProblem(str(problem)) from None
        return made

    def first_token(self, zone: str, ports: str) -> str | None:
        """
        Make a token for agents, if there is none yet.

        @return: the token; L{None} if there are some.
        @raise InstantProblem: if it can't be kept.
        """
        path = self.path("tokens.json")
        file = TokenFile(str(path))
        try:
            if path.exists() and file.agents():
                return None
            more = {"domains": [f"*.{zone}"], "ports": [ports] if ports else []}
            return file.add(FIRST_AGENT, [], None, False, None, **more, no_cluster=True)
        except TokenProblem as problem:
            raise InstantProblem(str(problem)) from None

    @property
    def tokens(self) -> str:
        """The file of tokens."""
        return str(self.path("tokens.json"))

    def pin(self, name: str, certificate: x509.Certificate) -> str:
        """Keep the only certificate that a server may show; tell the file."""
        self._write(f"{name}-server.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return str(self.path(f"{name}-server.pem"))

    def pinned(self, name: str) -> tuple[str, x509.Certificate] | None:
        """The file of what has been pinned, and the certificate; L{None} if nothing has."""
        path = self.path(f"{name}-server.pem")
        try:
            return str(path), x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):
            return None

    def keep(self, name: str, document: dict[str, Any]) -> str:
        """Write a configuration; tell the file."""
        self._write(f"{name}.json", json.dumps(document, indent=2).encode())
        return str(self.path(f"{name}.json"))

    def path(self, name: str) -> Path:
        """Return the path of a file in the directory."""
        return self.directory / name

    def _write(self, name: str, content: bytes) -> None:
        """Write a file that its owner alone may read, all at once."""
        temporary = self.path(f".{name}.{os.getpid()}")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, self.path(name))
        except OSError as error:
            raise InstantProblem(f"{self.path(name)} can't be written: {error.strerror}") from None
