"""
Who an agent is: what it has proved, and what it merely says.

A tunnel server makes one L{AgentIdentity} for each connection that joins, when
all that there is to judge has been judged.  It stays with the connection, and
with the host that this is, so that logs, access logs and the admin API speak of
the same agent by the same names.

Proved are the name that belongs to a credential (a token), and the subject of a
TLS certificate that was verified.  C{host_name} and the agent's id are what the
agent says of itself: useful, and no more than that.
"""

from __future__ import annotations

__all__ = ["UNPROVED", "AgentIdentity", "CertificateSubject", "handle_of", "shown_agent_id"]

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

UNPROVED: Final = "unproved"
"""What stands for the identity of an agent that has proved none."""

MAX_NAMES: Final = 16
"""How many alternative names of a certificate are kept."""

MAX_NAME: Final = 256
"""How many characters of a subject, or of one of its alternative names, are shown."""


def _shown(text: str) -> str:
    """Make what others have written fit for a line of a log: printable, and not too long."""
    text = text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


MAX_CLAIM: Final = 64
"""How many characters of what an agent calls itself a line of a log has: anybody may cause such lines."""


def shown_agent_id(agent: str) -> str:
    """
    Shorten the id that an agent of this project gives its process.

    Whoever knows the whole of it, and has the agent's address, may close the
    agent's connections gracefully.  So it is in no log.
    """
    return sha256(agent.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class CertificateSubject:
    """
    Whom a verified TLS certificate belongs to.

    @ivar key: an opaque string that is the same for every certificate of the same
        subject and alternative names, whoever has issued it and whenever.
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
    Who has brought a connection.

    @ivar name: the name that the agent's credential belongs to; empty if it
        showed none, or one that is nobody's in particular.
    @ivar policy: the policy by which the credential was judged; empty without one.
    @ivar certificate: whom its TLS certificate belongs to; L{None} without a
        verified one.
    @ivar claim: what the agent calls itself (C{host_name}); proves nothing.
    @ivar agent_id: tells the process of an agent of this project from others; see
        L{shown_agent_id}.  Proves nothing.
    @ivar version: which version of such announcements it speaks; 0 for MOSN's agents.
    """

    name: str = ""
    policy: str = ""
    certificate: CertificateSubject | None = None
    claim: str = ""
    agent_id: str = ""
    version: int = 0

    @property
    def proved(self) -> bool:
        """Whether it is known who this is."""
        return bool(self.name) or self.certificate is not None

    @property
    def principal(self) -> str:
        """
        The identity as one word, for access logs and labels.

        C{token:NAME}, or C{certificate:SUBJECT}, or L{UNPROVED}.  The kind stands
        in front, so that nobody's name can look like another kind.
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
        """The identity for a line of a log: what is proved first, what is claimed marked as such."""
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
        """All of it as JSON has it."""
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
        """Take back what L{to_json} gave."""
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
    Name an agent for operators: the same for all its connections, to whichever worker and server.

    One of this project is a process; one of MOSN's can't be told from another
    one of the same identity and address.

    @param ip: the address that it comes from.
    @return: 16 hexadecimal digits, which tell nobody its id.
    """
    certificate = "" if identity.certificate is None else identity.certificate.key
    known = [identity.policy, identity.name, certificate, identity.agent_id or ip]
    return sha256(json.dumps(known).encode()).hexdigest()[:16]
