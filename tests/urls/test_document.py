"""The OpenAPI file: valid, made from what the endpoints declare, and what the running application answers."""

from __future__ import annotations

import json

import openapi_spec_validator

from pgq import urls
from pgq.urls.endpoint import ENDPOINTS
from tests.support import openapi


def test_the_file_and_the_page_are_what_the_endpoints_declare() -> None:
    assert openapi.FILE.read_text(encoding="utf-8") == openapi.written(), "run make docs"
    page = openapi.PAGE.read_text(encoding="utf-8")
    assert page == openapi.page(page), "run make docs"


def test_the_file_is_openapi() -> None:
    openapi_spec_validator.validate(json.loads(openapi.written()))


def test_each_route_is_in_the_file() -> None:
    routes = {(each.path, each.method) for pattern in urls.urlpatterns for each in pattern.callback.endpoints}
    described = {
        (path.removeprefix("/"), method.upper())
        for path, operations in json.loads(openapi.written())["paths"].items()
        for method in operations
    }
    assert routes == described == {(each.path, each.method) for each in ENDPOINTS}
