"""A client of the admin API, whose errors are messages for people."""

from __future__ import annotations

__all__ = [
    "AdminClient",
    "AdminEndpoint",
    "AdminProblem",
    "agent_path",
    "endpoint_of",
    "exclusion_path",
    "find_admin",
    "read_token",
]

import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from reverseproxy.addresses import host_of, join_host_port
from reverseproxy.config.loader import load
from reverseproxy.config.models import AdminConfig
from reverseproxy.errors import ConfigError

API: Final = "/api/tunnel/v1/"

TIMEOUT: Final = 10.0
"""The default timeout of a request, in seconds."""

MAX_ANSWER: Final = 64 * 1024 * 1024
"""The maximum size of an answer in bytes."""

_PAGE: Final = 500


class AdminProblem(Exception):
    """A request to the admin API failed or was refused; the message has the reason and a remedy."""


@dataclass(frozen=True, slots=True)
class AdminEndpoint:
    """
    The address of an admin API.

    @ivar address: C{host:port} or C{unix:/path}.
    @ivar secure: whether it has TLS.
    @ivar ca: a file of authorities for its certificate; empty for the system's.
    """

    address: str
    secure: bool = False
    ca: str = ""

    @classmethod
    def parse(cls, text: str, ca: str | None = None) -> AdminEndpoint:
        """
        Parse C{host:port}, C{unix:/path}, C{/path}, or a URL.

        @param ca: a file of authorities for its certificate, which implies TLS.
        @raise AdminProblem: for anything else.
        """
        secure = ca is not None
        if text.startswith(("unix:", "/")):
            return cls(f"unix:{text.removeprefix('unix:')}", secure, ca or "")
        try:
            url = urlsplit(text if "://" in text else f"http://{text}")
            port = url.port
        except ValueError:
            port = None
        if not port or url.scheme not in ("http", "https") or not url.hostname:
            raise AdminProblem(f"--admin {text}: write HOST:PORT, a URL, or the path of a Unix socket")
        return cls(join_host_port(url.hostname, port), secure or url.scheme == "https", ca or "")

    def __str__(self) -> str:
        if self.address.startswith("unix:"):
            return self.address
        return f"http{'s' if self.secure else ''}://{self.address}"


def find_admin(address: str | None, config: str | None, ca: str | None) -> AdminEndpoint:
    """
    Find an admin API by the options of the command line.

    @param address: C{host:port}, C{unix:/path}, C{/path}, or a URL.
    @param config: instead, the configuration of a process on this machine.
    @raise AdminProblem: if neither gives an address.
    """
    if config is not None:
        return _of_file(config, ca or "")
    if address is None:
        raise AdminProblem("name the process: --admin ADDRESS, or --config FILE")
    return AdminEndpoint.parse(address, ca)


def _of_file(file: str, ca: str) -> AdminEndpoint:
    try:
        admin = load(file).config.admin
    except ConfigError as error:
        raise AdminProblem(str(error)) from None
    if admin is None or not admin.bound:
        raise AdminProblem(f"{file} has no admin API: write admin.address")
    endpoint = endpoint_of(admin, ca)
    if endpoint is None:
        raise AdminProblem(f"the system chooses the port of the admin API of {file}: use --admin")
    return endpoint


def endpoint_of(admin: AdminConfig | None, ca: str | None) -> AdminEndpoint | None:
    """
    Find the admin API of a configuration, from the same machine.

    @return: L{None} if it has none, or at a port that the system chooses.
    """
    bound = "" if admin is None else admin.bound
    if admin is None or not bound or bound.endswith(":0"):
        return None
    host, colon, port = bound.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - as it is written
    return AdminEndpoint(f"{host}{colon}{port}", admin.tls is not None, ca or "")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        """
        @param seconds: the timeout.
        """
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def read_token(file: str) -> str:
    """
    Read a token of the admin API from a file.

    @raise AdminProblem: if the file has none.
    """
    try:
        with open(file, encoding="utf-8") as opened:
            token = opened.read(4096).strip()
    except (OSError, ValueError) as error:
        raise AdminProblem(f"{file} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if not (token and token.isascii() and token.isprintable()) or " " in token:
        raise AdminProblem(f"{file} has no token: expected one line with a token")
    return token


class AdminClient:
    """
    Queries one process.

    @ivar problems: why answers are incomplete: workers, or servers of a fleet, that have not
        answered or were not reached.
    """

    def __init__(self, endpoint: AdminEndpoint, token: str = "", timeout: float = TIMEOUT) -> None:
        """
        @param token: a token of the admin API; empty for none.
        @param timeout: seconds for each answer.
        """
        self.problems: list[str] = []
        self._timeout = timeout
        self._endpoint = endpoint
        self._token = token

    @classmethod
    def with_token_file(cls, endpoint: AdminEndpoint, file: str | None) -> AdminClient:
        """
        Make a client with a token from a file.

        @raise AdminProblem: if the file has none.
        """
        return cls(endpoint) if file is None else cls(endpoint, read_token(file))

    def ask(self, path: str, method: str = "GET", **query: Any) -> dict[str, Any]:
        """
        Send a request, and return the answer.

        @param path: below C{/api/tunnel/v1/}.
        @raise AdminProblem: if it is not successful.
        """
        given = {name: value for name, value in query.items() if value is not None}
        status, answer = self.request(method, path + (f"?{urlencode(given)}" if given else ""))
        if status >= 300:
            raise AdminProblem(self._refused(status, answer))
        found = [each for each in answer.get("problems") or () if isinstance(each, dict) and "worker" in each]
        self.problems = list(dict.fromkeys([*self.problems, *map(_lacking, found)]))
        return answer

    def request(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        """
        Send a request, and return the status and the answer, of success or not.

        @param path: below C{/api/tunnel/v1/}, with its query.
        @raise AdminProblem: without an answer of an admin API.
        """
        status, body = self._exchange(method, API + path)
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AdminProblem(f"{self._endpoint.address} is not an admin API: it responds with {status}")
        return status, answer

    def ready(self) -> str:
        """
        Query the readiness of the process.

        @return: the reasons why it is not ready, as far as the caller may know; empty if it is.
        @raise AdminProblem: if there is no answer.
        """
        status, body = self._exchange("GET", "/readyz")
        text = body.decode("utf-8", "replace").strip()
        if (status, text.partition("\n")[0]) not in ((200, "ready"), (503, "not ready")):
            raise AdminProblem(f"{self._endpoint.address} is not an admin API: it responds with {status}")
        return "" if status == 200 else text

    def _exchange(self, method: str, target: str) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer."""
        connection = self._connection()
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(MAX_ANSWER)
        except ssl.SSLCertVerificationError as error:
            raise AdminProblem(
                f"the certificate of {self._endpoint.address} is not trusted: {error.verify_message}; "
                "use --ca FILE"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise AdminProblem(self._unreachable(error)) from None
        finally:
            connection.close()

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """
        Iterate over all items of a list, page by page.

        @raise AdminProblem: as L{ask} does.
        """
        after = None
        while True:
            page = self.ask(path, limit=_PAGE, after=after, **query)
            yield from page["items"]
            after = page.get("next")
            if after is None:
                return

    def _connection(self) -> http.client.HTTPConnection:
        endpoint = self._endpoint
        if endpoint.address.startswith("unix:"):
            return _UnixConnection(endpoint.address.removeprefix("unix:"), self._timeout)
        host, port = host_of(endpoint.address), int(endpoint.address.rpartition(":")[2])
        if not endpoint.secure:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        try:
            context = ssl.create_default_context(cafile=endpoint.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise AdminProblem(f"--ca {endpoint.ca} can't be used: {error}") from None
        return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)

    def _unreachable(self, error: Exception) -> str:
        where = self._endpoint.address
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        reason = reason or type(error).__name__
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return f"can't connect to {where}: {reason}; is the process running, with its admin API there?"
        if isinstance(error, PermissionError):
            return f"can't connect to {where}: {reason}; run the command as the user of the process"
        if isinstance(error, http.client.BadStatusLine | ConnectionResetError):
            return f"no HTTP response from {where}; if it uses TLS, write https://, or --ca FILE"
        return f"no response from {where}: {reason}"

    def _refused(self, status: int, answer: Mapping[str, Any]) -> str:
        problem = answer.get("detail") or answer.get("title") or answer.get("error") or f"status {status}"
        hint = ""
        if status == 401:
            hint = "; use --token-file FILE"
        return f"{problem}{hint}"


def _lacking(item: Mapping[str, Any]) -> str:
    """Return why an answer is incomplete."""
    who = f"server {item['server']}: " if item.get("server") else ""
    if not who and item["worker"]:
        who = f"worker {item['worker']}: "
    text = f"{who}{item.get('problem', 'no answer')}"
    return "".join(each if each.isprintable() else "?" for each in text)


def agent_path(key: str, action: str = "") -> str:
    """Return the path of an agent, or of an action on it."""
    return f"agents/{quote(key, safe='')}{f'/{action}' if action else ''}"


def exclusion_path(key: str) -> str:
    """Return the path of a ban."""
    return f"exclusions/{quote(key, safe='')}"
