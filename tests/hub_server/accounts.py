"""Users, their tokens, and who may do what.

Invariant: a repository that a caller may not see is answered like one that does not exist.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

from .web import Refusal, Request

BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - the message that the client compares with


@dataclass(frozen=True)
class Access:
    """What a token is for; `resource` limits it to one repository, as trusted publishing does."""

    user: str
    role: str
    orgs: tuple[str, ...] = ()
    resource: str | None = None

    def owns(self, namespace: str) -> bool:
        return namespace == self.user or namespace in self.orgs


@dataclass
class Accounts:
    """Tokens and what they are for, and the identities that trusted publishing accepts."""

    tokens: dict[str, Access] = field(default_factory=dict)
    trusted: dict[tuple[str, str], Access] = field(default_factory=dict)

    def add(self, user: str, token: str | None, role: str, orgs: tuple[str, ...]) -> str:
        if role not in ("read", "write"):
            raise ValueError(f"a token's role is read or write, not {role!r}")
        token = token or f"hf_{secrets.token_hex(16)}"
        self.tokens[token] = Access(user, role, orgs)
        return token

    def caller(self, request: Request) -> Access | None:
        """Who asks; None without a token. git sends the token as the password of basic authentication."""
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "basic":
            value = base64.b64decode(value).decode().partition(":")[2]
        if value not in self.tokens:
            raise Refusal(401, BAD_TOKEN)
        return self.tokens[value]

    def member(self, request: Request) -> Access:
        """Who asks, who must have a token."""
        caller = self.caller(request)
        if caller is None:
            raise Refusal(401, "Invalid username or password.")
        return caller

    def writer(self, request: Request, namespace: str) -> Access:
        """Who asks, who must be allowed to write to what is in a namespace."""
        caller = self.member(request)
        if caller.role != "write":
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        if not caller.owns(namespace):
            raise Refusal(403, f'You don\'t have the rights to write under the namespace "{namespace}"')
        return caller

    def exchange(self, identity: str, resource: str) -> str:
        """A token for one repository, for an identity that the repository trusts."""
        access = self.trusted.get((resource, identity))
        if access is None:
            raise Refusal(403, f"No trusted publisher of {resource} matches this identity", error="access_denied")
        token = f"hf_jwt_{secrets.token_hex(16)}"
        self.tokens[token] = access
        return token
