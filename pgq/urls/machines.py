"""Endpoints for machines: the description of all others, and whether all is well."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from django.http import HttpResponse, JsonResponse

from pgq.status import findings
from pgq.urls.endpoint import Call, endpoint


@endpoint("GET", "openapi.json", "Describe all of this as OpenAPI 3.1", scope="read", answer="Document", reads=False)
def document(call: Call) -> Any:
    """Return the file."""
    text = (files("pgq.urls") / "openapi.json").read_text(encoding="utf-8")
    return HttpResponse(text, content_type="application/json")


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
    findings.require_tables(call.cursor)
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
