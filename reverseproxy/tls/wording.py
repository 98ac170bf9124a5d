"""Explanations of OpenSSL's errors in handshakes, for operators."""

from __future__ import annotations

__all__ = ["explain"]

from typing import Final

_MEANINGS: Final = (
    ("http request", "it speaks plain HTTP"),
    ("https proxy request", "it speaks plain HTTP"),
    ("wrong version number", "it does not speak TLS"),
    ("alert unknown ca", "it does not know the authority of our certificate"),
    ("alert certificate required", "it demands a certificate of ours"),
    ("did not return a certificate", "it has shown no certificate, which is demanded here"),
    ("alert certificate expired", "our certificate has expired"),
    ("alert certificate revoked", "our certificate is revoked"),
    ("alert bad certificate", "it does not take our certificate"),
    ("alert certificate unknown", "it does not take our certificate"),
    ("alert unsupported certificate", "it does not take our certificate"),
    ("alert access denied", "it lets us in with no certificate like ours"),
    ("alert protocol version", "it speaks no version of TLS that we do"),
    ("unsupported protocol", "it speaks no version of TLS that is allowed here"),
    ("no shared cipher", "it has no cipher suite that is allowed here"),
    ("alert handshake failure", "it has nothing in common with us, or demands a certificate of ours"),
    ("alert unrecognized name", "it has no certificate for the name that was asked for"),
    ("alert internal error", "it has given up, perhaps as it does not take our certificate"),
)
"""Parts of OpenSSL's messages, each with its explanation."""


def explain(reason: str) -> str:
    """
    Return an explanation with OpenSSL's message.

    @param reason: OpenSSL's message; anything else is returned unchanged.
    """
    lower = reason.lower()
    for part, meaning in _MEANINGS:
        if part in lower:
            return f"{meaning} ({reason.removeprefix('TLS: ')})"
    return reason
