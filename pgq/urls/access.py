"""Who asks, and what they may: a login with model permissions, or a token with scopes. All else is refused."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.http import HttpRequest
from django.middleware.csrf import CsrfViewMiddleware

from pgq import signals
from pgq.conf import get_settings, tokens
from pgq.models import Dashboard
from pgq.urls.problems import Problem

logger = logging.getLogger("pgq")

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="pgq"'}
_SAFE = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    #: For the log: the name of a token, or of a user.
    name: str
    #: The scopes of a token; None: a user has logged in.
    scopes: frozenset[str] | None
    user: Any = None

    def may(self, scope: str, *permissions: str) -> bool:
        """Return whether a token has that scope, or the user all these permissions of pgq's models."""
        if self.scopes is not None:
            return scope in self.scopes
        return all(self.user.has_perm(f"pgq.{permission}") for permission in permissions)

    def require(self, scope: str, *permissions: str) -> None:
        """Raise unless the caller may.

        Raises:
            Problem: 403.
        """
        if not self.may(scope, *permissions):
            needed = f"a token with the scope {scope}"
            if permissions:
                needed += f", or a login with {' and '.join(f'pgq.{name}' for name in permissions)}"
            raise Problem(403, f"This takes {needed}.")


def identify(request: HttpRequest) -> Caller:
    """Return who asks.

    A request with a header Authorization is a program's: it is judged by that alone, whatever cookies it has. Any other
    is a browser's, so what it writes must carry Django's CSRF token.

    Raises:
        Problem: 401: unknown; 403: no member of the staff, or the CSRF token is missing.
    """
    header = request.headers.get("Authorization")
    if header is not None:
        return _program(header)
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        raise Problem(401, "Log in, or send a token as a header, Authorization: Bearer SECRET.", headers=_CHALLENGE)
    if not (user.is_active and user.is_staff):
        raise Problem(403, "This is for members of the staff.")
    if request.method not in _SAFE and (reason := _forged(request)) is not None:
        raise Problem(403, f"CSRF: {reason} Send the token as a header, X-CSRFToken.")
    return Caller(user.get_username(), None, user)


def _program(header: str) -> Caller:
    scheme, _, secret = header.partition(" ")
    found = None
    if scheme.lower() == "bearer":
        given = tokens.digest(secret.strip())
        # All of them, each in constant time: how long it takes says nothing of which one is nearly right.
        for token in get_settings().api_tokens.values():
            if hmac.compare_digest(token.sha256, given):
                found = token
    if found is None:
        raise Problem(401, "The header Authorization must be: Bearer SECRET, of a known token.", headers=_CHALLENGE)
    return Caller(f"token {found.name}", found.scopes)


class _Csrf(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _forged(request: HttpRequest) -> str | None:
    """Return why a request of a browser may be forged. The views are exempt from the middleware, for programs' sake."""
    check = _Csrf(lambda _: None)  # type: ignore[arg-type]  # it is asked for its judgement only
    check.process_request(request)
    view: Callable[..., Any] = identify
    reason: Any = check.process_view(request, view, (), {})
    return reason if reason is None else f"{reason}".rstrip(".") + "."


def log(caller: Caller, action: str, deed: str, about: str = "") -> None:
    """Say what a caller has done: in the log, in Django's log of the admin if a user did it, to `operator_action`.

    Args:
        action: Its name, for receivers of the signal.
        deed: In words.
        about: The id or name of what it was done to.
    """
    # A name may hold what it likes, where the project checks none; the deed has texts of others as repr() writes them.
    name = caller.name if caller.name.isprintable() else ascii(caller.name)
    logger.info("%s, by REST: %s", name, deed)
    if caller.user is not None and apps.is_installed("django.contrib.admin"):
        # A project without the admin must not import its models.
        from django.contrib.admin.models import CHANGE, LogEntry
        from django.contrib.contenttypes.models import ContentType

        LogEntry.objects.create(
            user_id=caller.user.pk,
            content_type_id=ContentType.objects.get_for_model(Dashboard, for_concrete_model=False).pk,
            object_id=about[:200],
            object_repr=about[:200],
            action_flag=CHANGE,
            change_message=f"By REST: {deed}.",
        )
    facts = {"by": caller.name}
    signals.send(signals.operator_action, action=action, user=caller.user, object=about, text=deed, facts=facts)
