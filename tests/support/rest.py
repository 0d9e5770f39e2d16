"""What the tests of REST share: tokens, and calls with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from pgq.conf.tokens import SCOPES, digest

ALL = tuple(SCOPES)


class Api:
    """Calls the routes with a token that has just these scopes."""

    def __init__(self, settings: Any, *scopes: str) -> None:
        secret = "pgq_" + "-".join(scopes)
        given = dict(getattr(settings, "PGQ", {}))
        tokens = {
            **given.get("api_tokens", {}),
            "test." + ".".join(scopes): {"sha256": digest(secret), "scopes": scopes},
        }
        settings.PGQ = {**given, "api_tokens": tokens}
        self.headers = {"Authorization": f"Bearer {secret}"}
        self.client = Client(enforce_csrf_checks=True)

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        return self._checked(self.client.get(f"/pgq/{path}", query, headers=self.headers), status)

    def post(self, path: str, body: Any = None, status: int = 200, method: str = "post") -> Any:
        call = getattr(self.client, method)
        content = "" if body is None else json.dumps(body)
        response = call(f"/pgq/{path}", content, content_type="application/json", headers=self.headers)
        return self._checked(response, status)

    @staticmethod
    def _checked(response: Any, status: int) -> Any:
        assert response.status_code == status, (response.status_code, response.content)
        assert response["Cache-Control"] == "no-store"
        return json.loads(response.content) if response.content else None


@pytest.fixture
def api(settings: Any) -> Any:
    """Return what makes an `Api` with some scopes."""
    return lambda *scopes: Api(settings, *(scopes or ALL))
