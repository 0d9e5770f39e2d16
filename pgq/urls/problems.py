"""What a request is refused with: problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http import JsonResponse

#: The word that ends a problem's type, for each status.
WORDS: Mapping[int, str] = {
    400: "invalid",
    401: "no-login",
    403: "forbidden",
    404: "unknown",
    405: "method",
    409: "state",
    413: "too-large",
    415: "media-type",
    503: "unavailable",
}
#: When each is answered, for docs/reference/errors.md.
MEANINGS: Mapping[int, str] = {
    400: "a parameter, a field or the body is wrong, unknown, or given twice; `errors` names each",
    401: "there is no login and no known token",
    403: "the scope of the token, or a permission of the login, is missing; or the CSRF token",
    404: "it is not there, or may not be seen: the answer is the same",
    405: "the route has other methods; the header `Allow` names them",
    409: "the state has changed, so that the action makes no sense any more",
    413: "the body has more than 1,000,000 bytes",
    415: "the body is not `application/json`",
    503: "PostgreSQL does not answer, its tables are missing or old, or a statement took longer than 2 s",
}
TYPE = "urn:pgq:problem:"
#: Python's own words for 413 differ from release to release.
_TOO_LARGE = "Content Too Large"


def phrase(status: int) -> str:
    """Return the words for a status."""
    return _TOO_LARGE if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else HTTPStatus(status).phrase


class Problem(Exception):
    """A request is refused.

    Args:
        status: Of the response, one of `WORDS`.
        detail: What is wrong and what to do, for people.
        errors: What is wrong by the name of a parameter or of a field of the body.
        headers: More headers of the response.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.errors, self.headers = dict(errors or {}), dict(headers or {})

    def response(self) -> JsonResponse:
        """Return the response that says so."""
        body: dict[str, Any] = {
            "type": TYPE + WORDS[self.status],
            "title": phrase(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return JsonResponse(body, status=self.status, headers=self.headers, content_type="application/problem+json")


def unknown(what: str) -> Problem:
    """Return the refusal for what is not there, or may not be seen."""
    return Problem(404, f"There is no such {what}, or you may not see it.")


def invalid(**errors: str) -> Problem:
    """Return the refusal of parameters or fields, by their names."""
    first = next(iter(errors.items()))
    return Problem(400, f"{first[0]} {first[1]}", errors)
