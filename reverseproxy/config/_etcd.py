"""C{fleet.etcd}: the etcd with the directory of a fleet."""

from __future__ import annotations

__all__ = ["EtcdConfig", "check_etcd"]

import re
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator

from reverseproxy.addresses import host_of, is_loopback
from reverseproxy.config._base import Model, key
from reverseproxy.config._nodes import Location
from reverseproxy.config._tls import TlsContextConfig, enabled
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import HostPort, Interval, Text, quote
from reverseproxy.config.diagnostics import Diagnostics

_ETCD: Final[Location] = ("fleet", "etcd")

_PREFIX: Final = re.compile(r"[!-~]{1,256}")

SHORTEST_TTL: Final = 2.0
LONGEST_TTL: Final = 600.0


def _prefix(value: str) -> str:
    if _PREFIX.fullmatch(value) is None:
        raise ValueError(f"{quote(value)} is no prefix; write up to 256 characters of ASCII, no blanks")
    return value if value.endswith("/") else f"{value}/"


def _ttl(value: float) -> float:
    if not SHORTEST_TTL <= value <= LONGEST_TTL:
        raise ValueError(f"{value:g} s is out of range; write a duration from 2s to 10m")
    return value


def _endpoint(value: object) -> object:
    """Refuse a URL, which is what etcd's own tools take."""
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        tls = "; TLS is on with tls_context" if value.startswith("https:") else ""
        raise ValueError(f'{quote(value)} is a URL; write "host:port"{tls}')
    return value


class EtcdConfig(Model):
    """The etcd that has the directory."""

    strict_keys = True

    endpoints: tuple[Annotated[HostPort, BeforeValidator(_endpoint)], ...] = key(
        (),
        'Where its members take clients: each "host:port". One of them is asked, and the next one if it does '
        "not answer.",
        required=True,
        ours=True,
    )
    tls_context: TlsContextConfig | None = key(
        None,
        "TLS for these: ca_cert, and cert_chain and private_key if it wants a certificate. Without it, they "
        "are spoken to in plaintext.",
        ours=True,
        protects=True,
    )
    user: Text = key("", "The user name; empty if etcd requires none.", ours=True)
    password_file: Text = key(
        "",
        "A file with the password, and nothing else but a line's end. It is read at each log-in.",
        ours=True,
    )
    password_env: Text = key(
        "", "The environment variable that has the password, instead of a file.", ours=True
    )
    prefix: Annotated[Text, AfterValidator(_prefix)] = key(
        "/reverseproxy/fleet/",
        "What all keys of the fleet begin with: several fleets may share an etcd. It takes a restart to "
        "change that.",
        ours=True,
    )
    lease_ttl: Annotated[Interval, AfterValidator(_ttl)] = key(
        10.0,
        "How long after its last word a server is gone for the others, if they can't reach it either: "
        "from 2s to 10m.",
        ours=True,
    )

    @property
    def tls(self) -> TlsContextConfig | None:
        """The C{tls_context}, if it is on."""
        return enabled(self.tls_context)


def check_etcd(etcd: EtcdConfig | None, tree: Tree, findings: Diagnostics) -> None:
    """
    Check keys that depend on others.

    @param etcd: the model, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets errors and warnings.
    """
    if etcd is None:
        return
    for location, problem in _problems(etcd):
        findings.error(tree.locate(location), problem)
    far = [] if etcd.tls is not None else [each for each in etcd.endpoints if not is_loopback(host_of(each))]
    if far:
        findings.warn(
            tree.locate((*_ETCD, "endpoints")),
            f"there is no TLS to {far[0]}: the directory{' and the password' if etcd.user else ''} can be "
            "read and changed on the way; set tls_context",
        )


def _problems(etcd: EtcdConfig) -> Iterator[tuple[Location, str]]:
    secrets = [name for name in ("password_file", "password_env") if getattr(etcd, name)]
    if not etcd.endpoints:
        yield (*_ETCD, "endpoints"), "is empty: write where its members take clients"
    if etcd.user and not secrets:
        yield (*_ETCD, "user"), "has no password: write password_file or password_env"
    if secrets and not etcd.user:
        yield (*_ETCD, secrets[0]), "is a password without a user: write user, too"
    if len(secrets) > 1:
        yield (*_ETCD, secrets[1]), "password_file and password_env can't be used together"
    if etcd.tls is not None and etcd.tls.fall_back:
        yield (*_ETCD, "tls_context", "fall_back"), "would let the directory be read in plaintext"
    twice = [each for number, each in enumerate(etcd.endpoints) if each in etcd.endpoints[:number]]
    if twice:
        yield (*_ETCD, "endpoints"), f"{quote(twice[0])} is there more than once"
