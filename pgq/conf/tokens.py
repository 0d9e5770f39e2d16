"""The tokens by which programs use pgq's REST routes: what PGQ["api_tokens"] holds of them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

#: What a token may be for, and what that is.
SCOPES: Mapping[str, str] = {
    "read": "see tasks, queues, schedules, pools and findings, without arguments, results and messages",
    "payload": "see those as well",
    "metrics": "read the metrics, and ask whether all is well",
    "act": "cancel, retry and move tasks, pause and resume queues, change schedules",
    "enqueue": "enqueue functions that are registered with api=True",
}
#: Begins each secret, so that scanners for leaked secrets know it.
PREFIX = "pgq_"
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: What fits into a log line and a label.
_NAME = re.compile(r"[\w.:-]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the settings have it: only a digest of its secret."""

    name: str
    sha256: str
    scopes: frozenset[str]


def digest(secret: str) -> str:
    """Return what the settings hold of a secret, which is as random: it needs neither salt nor stretching."""
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()


def new_secret() -> str:
    """Return a new secret of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def is_name(name: str) -> bool:
    """Whether a token may have that name: 1 to 100 letters, digits, dots, colons, dashes and underscores."""
    return _NAME.fullmatch(name) is not None


def rule(value: Any) -> str | None:
    """Return what the setting should have been; None: it is right."""
    right = isinstance(value, Mapping) and all(_is_right(name, entry) for name, entry in value.items())
    return (
        None
        if right
        else (
            "a dict {name: {'sha256': 64 hex digits, 'scopes': [...]}} as manage.py pgq_token prints it; scopes: "
            + ", ".join(SCOPES)
        )
    )


def _is_right(name: Any, entry: Any) -> bool:
    if isinstance(entry, Token):
        # What `keep` has made of a right value: settings are built anew from settings, for tests.
        return True
    if not isinstance(name, str) or not is_name(name) or not isinstance(entry, Mapping):
        return False
    if set(entry) != {"sha256", "scopes"} or not isinstance(entry["scopes"], list | tuple | set | frozenset):
        return False
    is_digest = isinstance(entry["sha256"], str) and _DIGEST.fullmatch(entry["sha256"]) is not None
    return is_digest and bool(entry["scopes"]) and all(scope in SCOPES for scope in entry["scopes"])


def keep(value: Mapping[str, Any]) -> Mapping[str, Token]:
    """Return the tokens of a right value by their names."""
    return {
        name: entry if isinstance(entry, Token) else Token(name, entry["sha256"], frozenset(entry["scopes"]))
        for name, entry in value.items()
    }
