"""
The identity of an agent: what it has proved, and what it claims.

A tunnel server makes one L{AgentIdentity} for each connection that joins, after all checks.
It stays with the connection and its host, so that logs, access logs and the admin API name
an agent in the same way.

The owner of a credential (a token) and the subject of a verified TLS certificate are proved.
C{host_name} and the agent's id are claims of the agent.
"""

from __future__ import annotations

__all__ = ["UNPROVED", "AgentIdentity", "CertificateSubject", "handle_of", "shown_agent_id"]

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

UNPROVED: Final = "unproved"
"""Stands for the identity of an agent that has proved none."""

MAX_NAMES: Final = 16
"""How many alternative names of a certificate are kept."""

MAX_NAME: Final = 256
"""How many characters of a subject, or of one of its alternative names, are shown."""


def _shown(text: str) -> str:
    """Make a text of a peer fit for a line of the log: printable, and bounded in length."""
    text = text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


MAX_CLAIM: Final = 64
"""Characters of an agent's claimed name in the log; unauthenticated agents can cause such lines."""


def shown_agent_id(agent: str) -> str:
    """
    Hash the id of an agent's process, for logs.

    The id itself is a secret: a peer that knows it, and has the agent's address, may close the
    agent's connections gracefully.
    """
    return sha256(agent.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class CertificateSubject:
    """
    The owner of a verified TLS certificate.

    @ivar key: an opaque string, the same for all certificates of the same
        subject and alternative names.
    @ivar subject: the subject as RFC 4514 writes it; may be empty.
    @ivar names: the alternative names, such as C{"DNS:agent.example"}.
    """

    key: str
    subject: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _shown(self.subject or (self.names[0] if self.names else self.key))


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """
    The identity of the agent of a connection.

    @ivar name: the owner of the agent's credential; empty without a credential, or
        if the credential names no owner.
    @ivar policy: the credential's policy; empty without one.
    @ivar certificate: the owner of its TLS certificate; L{None} without a
        verified one.
    @ivar claim: the agent's name for itself (C{host_name}); not proved.
    @ivar agent_id: the id of the process of an agent of this project, see
        L{shown_agent_id}; not proved.
    @ivar version: the version of its announcements; 0 for MOSN's agents.
    """

    name: str = ""
    policy: str = ""
    certificate: CertificateSubject | None = None
    claim: str = ""
    agent_id: str = ""
    version: int = 0

    @property
    def proved(self) -> bool:
        """Whether an identity was proved."""
        return bool(self.name) or self.certificate is not None

    @property
    def principal(self) -> str:
        """
        The identity as one word, for access logs and labels.

        C{token:NAME}, or C{certificate:SUBJECT}, or L{UNPROVED}.  The kind comes
        first, so that no name can look like another kind.
        """
        if self.name:
            return f"token:{_shown(self.name)}"
        if self.certificate is not None:
            return f"certificate:{self.certificate}"
        return UNPROVED

    @property
    def proofs(self) -> str:
        """How the identity was proved, for people; empty if it was not."""
        proofs = [f"token of policy {_shown(self.policy)}"] if self.name else []
        if self.certificate is not None:
            proofs.append(f"certificate {self.certificate}")
        return ", ".join(proofs)

    def __str__(self) -> str:
        """The identity for the log: first what is proved, then what is claimed, marked as such."""
        if self.name:
            text = f"agent {_shown(self.name)} ({self.proofs})"
        elif self.certificate is not None:
            text = f"agent {self.certificate} (certificate)"
        elif self.policy:
            text = f"an {UNPROVED} agent (policy {_shown(self.policy)} names nobody)"
        else:
            text = f"an {UNPROVED} agent"
        if not self.claim:
            return text
        claim = self.claim
        if len(claim) > MAX_CLAIM:
            claim = f"{claim[: MAX_CLAIM - 3]}..."
        claim = _shown(claim).replace("\\", "\\\\").replace('"', '\\"')
        return f'{text} that calls itself "{claim}"'

    # between processes, and for the admin API

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        certificate = self.certificate
        return {
            "name": self.name,
            "policy": self.policy,
            "certificate": None
            if certificate is None
            else {"key": certificate.key, "subject": certificate.subject, "names": list(certificate.names)},
            "claim": self.claim,
            "agent_id": self.agent_id,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AgentIdentity:
        """Make an identity of the result of L{to_json}."""
        found = value["certificate"]
        certificate = (
            None
            if found is None
            else CertificateSubject(found["key"], found["subject"], tuple(found["names"]))
        )
        return cls(
            value["name"],
            value["policy"],
            certificate,
            value["claim"],
            value["agent_id"],
            value["version"],
        )


def handle_of(identity: AgentIdentity, ip: str) -> str:
    """
    Return a handle for operators: the same for all connections of an agent, to any worker and server.

    An agent of this project is one process; MOSN's agents of the same identity and address
    share a handle.

    @param ip: the address of its connection.
    @return: 16 hexadecimal digits, which don't reveal its id.
    """
    certificate = "" if identity.certificate is None else identity.certificate.key
    known = [identity.policy, identity.name, certificate, identity.agent_id or ip]
    return sha256(json.dumps(known).encode()).hexdigest()[:16]
