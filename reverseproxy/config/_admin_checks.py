"""Checks of C{admin} that concern several keys."""

from __future__ import annotations

__all__ = ["check_admin"]

from collections.abc import Callable
from typing import Final

from reverseproxy.addresses import is_loopback
from reverseproxy.config._admin import AdminConfig
from reverseproxy.config._nodes import Location, Node
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import quote
from reverseproxy.config.diagnostics import Diagnostics

_PLACE: Final[Location] = ("admin",)
_ADDRESS: Final[Location] = ("admin", "address")
Report = Callable[[Location, str], None]
"""Adds an error or a warning, given its location and message."""

_OURS: Final = ("tls_context", "tokens_file", "certificates")


def check_admin(admin: AdminConfig | None, tree: Tree, findings: Diagnostics) -> None:
    """
    Check that the admin API does not admit callers by mistake.

    @param admin: the model, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets errors and warnings.
    """
    if admin is None or tree.get(_PLACE) is None:
        return

    def error(location: Location, message: str) -> None:
        findings.error(tree.locate(location), message)

    def warn(location: Location, message: str) -> None:
        findings.warn(tree.locate(location), message)

    where = admin.address
    if where is None or (where.socket_address is None and where.pipe is None):
        warn(_ADDRESS, "has neither socket_address nor pipe: there is no admin API")
        return
    if where.socket_address is not None and where.pipe is not None:
        error(_ADDRESS, "socket_address and pipe can't be used together; write one of them")
        return
    _check_tls(admin, error)
    if where.socket_address is not None and not is_loopback(where.socket_address.address):
        _check_reach(admin, where.socket_address.address, tree.get(_PLACE), error, warn)


def _check_tls(admin: AdminConfig, error: Report) -> None:
    """Check that TLS verifies the certificates that are configured."""
    tls = admin.tls
    if admin.certificates and (tls is None or not tls.verify_client or not tls.ca_cert):
        error(
            ("admin", "certificates"),
            "no certificate would be verified: write tls_context with status, verify_client and ca_cert",
        )
    if tls is not None and tls.fall_back:
        error(("admin", "tls_context", "fall_back"), "would let the admin API be reached in plaintext")


def _check_reach(admin: AdminConfig, host: str, document: object, error: Report, warn: Report) -> None:
    """Check that other machines reach the API only over TLS, and with a token or certificate."""
    missing = []
    if admin.tls is None:
        missing.append("tls_context with status: true")
    if not admin.authenticates:
        missing.append("tokens_file or certificates")
    if not missing:
        return
    place = (*_ADDRESS, "socket_address", "address")
    if isinstance(document, Node) and any(key in document or key in document.lost for key in _OURS):
        error(
            place,
            f"others than this machine could reach the admin API at {quote(host)}, which takes "
            f"{' and '.join(missing)}; or write 127.0.0.1",
        )
    else:
        # MOSN's samples have it so, and MOSN lets everybody in.
        warn(
            place,
            f"the admin API listens at 127.0.0.1 instead of {quote(host)}: for others than this machine, "
            f"it takes {' and '.join(missing)}",
        )
