"""The OpenAPI file: valid, made from what the endpoints declare, and what the running application answers."""

from __future__ import annotations

import json
from typing import Any

import openapi_spec_validator
import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from pgq import urls
from pgq.tasks import async_task, schedule
from pgq.urls.endpoint import ENDPOINTS
from tests.functions import api as functions
from tests.support import openapi
from tests.support.admin import finished

#: Requests for each route.
EXAMPLES = 6


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


# Another thread of this process may draw a random number meanwhile: the pause of a reader that connects anew.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module")
@pytest.mark.django_db(transaction=True)
def test_the_running_application_answers_as_the_file_says(api: Any, settings: Any) -> None:
    """Of each route some requests, right ones and wrong ones: no fault, and no answer that the file does not have."""
    settings.ALLOWED_HOSTS = ["localhost", "testserver"]
    caller = api()
    for func in (functions.offered, functions.strict):
        async_task(func, 1)
    finished()
    finished(success=False)
    schedule(functions.offered.path, name="n", schedule_type="D")
    schema = schemathesis.openapi.from_wsgi("/pgq/openapi.json", get_wsgi_application(), headers=caller.headers)
    checks = [
        status_code_conformance, content_type_conformance, response_schema_conformance,
        negative_data_rejection,
    ]  # fmt: skip
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @examples(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
        )
        def ask(case: Any) -> None:
            response = case.call(headers=caller.headers)
            # No pool runs what is ready, so not all is well.
            assert response.status_code < 500 or case.operation.path == "/health", response.text
            tried.add((case.operation.path, case.operation.method))
            case.validate_response(response, checks=checks, headers=caller.headers)

        ask()
    # (The file itself was the first request.)
    assert len(tried) == len(ENDPOINTS) - 1
