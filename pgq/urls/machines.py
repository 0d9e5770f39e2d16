"""Endpoints for machines: the description of all others, and whether all is well."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from django.http import JsonResponse

from pgq.conf import get_settings
from pgq.status import findings
from pgq.urls.endpoint import Call, endpoint


@endpoint("GET", "openapi.json", "Describe all of this as OpenAPI 3.1", scope="read", answer="Document", reads=False)
def document(call: Call) -> Any:
    """Return the file, with the address of this server."""
    found = json.loads((files("pgq.urls") / "openapi.json").read_text(encoding="utf-8"))
    # Where the project has included the routes.
    found["servers"][0]["url"] = call.request.path.removesuffix("/openapi.json")
    return found


@endpoint(
    "GET",
    "health/live",
    "Answer, without asking PostgreSQL",
    scope="metrics",
    answer="Health",
    reads=False,
)
def live(call: Call) -> Any:
    """Say that this process answers."""
    return {"status": findings.OK}


@endpoint(
    "GET",
    "health/ready",
    "Tell whether PostgreSQL answers and has the tables that this release needs",
    scope="metrics",
    answer="Health",
    refusals=(503,),
)
def ready(call: Call) -> Any:
    """Say whether tasks can be enqueued."""
    findings.require_tables(call.cursor, get_settings().database)
    return {"status": findings.OK}


@endpoint(
    "GET",
    "health",
    "Tell whether tasks are run as they should be",
    scope="metrics",
    answer="Health",
    answers=(503,),
)
def health(call: Call) -> Any:
    """Say what all checks say together."""
    status = findings.overall(findings.findings(call.cursor))
    return JsonResponse({"status": status}, status=503 if status == findings.PROBLEM else 200)
