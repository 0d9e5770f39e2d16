"""Write pgq/urls/openapi.json, and the table of docs/reference/rest.md, from what the endpoints declare.

::

    make docs

What an endpoint answers with is one of the schemas below, which the tests hold the running server to.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import django

from pgq import __version__
from pgq.conf.tokens import SCOPES

ROOT = Path(__file__).parents[2]
FILE = ROOT / "pgq/urls/openapi.json"
PAGE = ROOT / "docs/reference/rest.md"
_TABLE = re.compile(r"(<!-- routes -->\n).*?(<!-- end -->)", re.DOTALL)

TEXT, BOOLEAN, WHOLE, NUMBER = ({"type": kind} for kind in ("string", "boolean", "integer", "number"))
MOMENT = {"type": "string", "format": "date-time"}
ID = {"type": "string", "pattern": "^[0-9a-f]{32}$"}


def optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def record(optional_names: str = "", **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional_names.split()]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


STATES = ("ready", "running", "waiting", "parked", "succeeded", "failed")
_FUNCTION = record(
    func=TEXT, queue=optional(TEXT), priority=optional(WHOLE), timeout=optional(NUMBER), max_attempts=optional(WHOLE),
    atomic=BOOLEAN, api=BOOLEAN,
)  # fmt: skip
_QUEUE = record(
    queue=TEXT, ready=ref("Count"), running=WHOLE, oldest_ready_seconds=optional(NUMBER), paused=BOOLEAN,
)  # fmt: skip
_TASK = record(
    "started_at stopped_at seconds exception cluster run_after claimed_at waits_for parked cancelled payload",
    id=ID, name=TEXT, func=TEXT, queue=TEXT, state=one_of(*STATES), priority=WHOLE, attempts=WHOLE, max_attempts=WHOLE,
    timeout=optional(NUMBER), group=optional(TEXT), hook=optional(TEXT), schedule=optional(WHOLE), enqueued_at=MOMENT,
    started_at=MOMENT, stopped_at=MOMENT, seconds=NUMBER, exception=optional(TEXT), cluster=optional(TEXT),
    run_after=optional(MOMENT), claimed_at=optional(MOMENT), waits_for=optional(WHOLE), parked=optional(TEXT),
    cancelled=BOOLEAN, payload=ref("Payload"),
)  # fmt: skip
SCHEMAS: dict[str, dict[str, Any]] = {
    "Problem": record(
        "errors", type={"type": "string", "pattern": "^urn:pgq:problem:[a-z-]+$"}, title=TEXT,
        status=WHOLE, detail=TEXT, errors={"type": "object", "additionalProperties": TEXT},
    ),
    "Count": record(count=WHOLE, exact=BOOLEAN),
    "Health": record(status=one_of("ok", "warning", "problem")),
    "Status": record(
        version=TEXT, at=MOMENT,
        queued=record(**{state: ref("Count") for state in STATES[:4]}),
        finished=record(**{state: ref("Count") for state in STATES[4:]}),
        pools=WHOLE, workers=WHOLE, schedules=record(all=WHOLE, active=WHOLE, faulty=WHOLE),
    ),
    "Queue": _QUEUE,
    "Queues": record(queues=array(ref("Queue"))),
    "QueueDone": record(queue=TEXT, done=one_of("paused", "resumed")),
    "Task": _TASK,
    "Payload": {
        "type": "object",
        "description": "Values as pgq stores them, with tags; secrets masked, those of a sensitive task as a digest.",
    },
    "Tasks": record(tasks=array(ref("Task")), next=optional(TEXT)),
    "Verdict": record(id=ID, code=TEXT, sentence=TEXT, facts={"type": "object"}),
    "Done": record(id=ID, done=TEXT),
    "Enqueued": record(id=ID),
    "Bulk": {
        "oneOf": [
            record(matches=ref("Count"), token=optional(TEXT)),
            record(done=WHOLE, skipped=WHOLE, conflicts=WHOLE, next=optional(TEXT)),
        ]
    },
    "Schedule": record(
        id=WHOLE, name=optional(TEXT), func=TEXT, queue=optional(TEXT), priority=WHOLE, schedule_type=TEXT,
        cron=optional(TEXT), minutes=optional(WHOLE), seconds=optional(NUMBER), repeats=WHOLE,
        next_run=optional(MOMENT), last_slot=optional(MOMENT), last_task=optional(TEXT), time_zone=optional(TEXT),
        catch_up=optional(BOOLEAN), overlap=TEXT, jitter=NUMBER, paused=BOOLEAN, error=optional(TEXT),
        source=one_of("code", "database"),
    ),
    "Schedules": record(schedules=array(ref("Schedule")), next=optional(TEXT)),
    "ScheduleDone": record(id=WHOLE, done=TEXT),
    "Function": _FUNCTION,
    "Functions": record(functions=array(ref("Function"))),
    "Error": record(
        func=TEXT, exception=optional(TEXT), count=WHOLE, first_enqueued_at=MOMENT, last_enqueued_at=MOMENT
    ),
    "Errors": record(exact=BOOLEAN, errors=array(ref("Error"))),
    "Flows": record(flows=array(record(
        group=TEXT, tasks=WHOLE, live=WHOLE, succeeded=WHOLE, failed=WHOLE, last_enqueued_at=MOMENT,
    ))),
    "Flow": record(
        group=TEXT, exact=BOOLEAN,
        tasks=array(record(
            id=ID, name=optional(TEXT), func=TEXT, state=one_of(*STATES, "cancelled"), collects=BOOLEAN,
            follow=array(TEXT),
        )),
    ),
    "Audit": record(
        entries=array(record(
            id=WHOLE, at=MOMENT, user=TEXT, kind=optional(TEXT), object=optional(TEXT), name=TEXT, deed=TEXT,
        )),
        next=optional(TEXT),
    ),
    "Group": record(group=TEXT, exact=BOOLEAN, states=record(**dict.fromkeys(STATES, WHOLE))),
    "Worker": record(
        number=WHOLE, state=TEXT, pid=optional(WHOLE), task=optional(TEXT), seconds=optional(NUMBER), succeeded=WHOLE,
        failed=WHOLE, restarts=optional(WHOLE),
    ),
    "Pool": record(
        id=ID, name=TEXT, host=TEXT, pid=WHOLE, version=TEXT, status=TEXT, alive=BOOLEAN, silent_seconds=NUMBER,
        uptime_seconds=NUMBER, queues=optional(array(TEXT)), exclude_queues=array(TEXT), workers=array(ref("Worker")),
    ),
    "Pools": record(pools=array(ref("Pool"))),
    "Finding": record(check=TEXT, status=one_of("ok", "warning", "problem"), detail=TEXT, advice=TEXT),
    "Findings": record(status=one_of("ok", "warning", "problem"), checks=array(ref("Finding"))),
    "Point": record(at=MOMENT, value=optional(NUMBER)),
    "Series": record(metric=TEXT, key=TEXT, step=NUMBER, points=array(ref("Point"))),
    "SeriesList": record(series=array(ref("Series"))),
    "Mark": record(id=WHOLE, at=MOMENT, label=TEXT, kind=TEXT, author=optional(TEXT)),
    "MarkDone": record(label=TEXT),
    "Marks": record(marks=array(ref("Mark"))),
    "KeptFinding": record(
        check=TEXT, status=one_of("ok", "warning", "problem"), detail=TEXT, advice=TEXT, since=MOMENT,
        checked_at=MOMENT,
    ),
    "KeptFindings": record(checks=array(ref("KeptFinding"))),
    "Metrics": TEXT,
    "Document": {"type": "object"},
}  # fmt: skip

#: What the metrics may be.
_TEXTS = ("text/plain", "application/openmetrics-text")
#: What any request may be refused with, besides what its endpoint declares.
_ANY = (400, 401, 403, 503)
#: What a body may be refused with.
_OF_BODY = (413, 415)


def document() -> dict[str, Any]:
    """Return the description of all endpoints."""
    from pgq import urls
    from pgq.urls.endpoint import ENDPOINTS

    assert urls.urlpatterns
    paths: dict[str, Any] = {}
    for each in ENDPOINTS:
        paths.setdefault(f"/{each.path}", {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pgq",
            "version": __version__,
            "description": "Tasks, queues, schedules and pools of pgq. Times are in UTC, durations in seconds.",
        },
        "servers": [{"url": "/pgq", "description": "Where the project includes pgq.urls"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Scopes: " + "; ".join(f"{name}: {text}" for name, text in SCOPES.items()),
                },
                "login": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "sessionid",
                    "description": "A member of the staff who is logged in; writes carry the header X-CSRFToken.",
                },
            },
        },
        "security": [{"token": []}, {"login": []}],
    }


def _operation(each: Any) -> dict[str, Any]:
    from pgq.urls.endpoint import OF_ALL, PARTS

    operation: dict[str, Any] = {
        "operationId": each.handler.__module__.rpartition(".")[2] + "_" + each.handler.__name__,
        "summary": each.summary,
        "description": _needs(each),
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": PARTS[name].schema} for name in each.parts),
            *({"name": name, "in": "query", "schema": kind.schema} for name, kind in {**each.query, **OF_ALL}.items()),
        ],
        "responses": _responses(each),
    }
    if each.body is not None:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: kind.schema for name, kind in each.body.items()},
            "additionalProperties": False,
        }
        if each.required:
            schema["required"] = list(each.required)
        operation["requestBody"] = {
            "required": bool(each.required),
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def _needs(each: Any) -> str:
    permissions = " and ".join(f"pgq.{name}" for name in each.permissions) or "nothing more"
    return f"Takes a token with the scope {each.scope}, or a login with {permissions}."


def _responses(each: Any) -> dict[str, Any]:
    from pgq.urls.problems import phrase

    found: dict[str, Any] = {}
    contents = _TEXTS if each.answer == "Metrics" else ("application/json",)
    content = {name: {"schema": ref(each.answer)} for name in contents}
    for status in (*([] if 201 in each.answers else [200]), *each.answers):
        found[str(status)] = {"description": phrase(status), "content": dict(content)}
    problem = {"application/problem+json": {"schema": ref("Problem")}}
    for status in (*_ANY, *each.refusals, *(_OF_BODY if each.body is not None else ())):
        if str(status) in found:
            found[str(status)]["content"].update(problem)
        else:
            found[str(status)] = {"description": phrase(status), "content": problem}
    if each.parts:
        found.setdefault("404", {"description": phrase(404), "content": problem})
    return dict(sorted(found.items()))


def written() -> str:
    """Return the file as it should be."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def page(text: str) -> str:
    """Return docs/reference/rest.md with its table as it should be."""
    from pgq.urls.endpoint import ENDPOINTS

    lines = ["| route | what it does | scope | permissions of a login |", "|---|---|---|---|"]
    for each in sorted(ENDPOINTS, key=lambda each: (each.path, each.method)):
        permissions = ", ".join(f"`{name}`" for name in each.permissions) or "-"
        lines.append(f"| `{each.method} {each.path}` | {each.summary} | `{each.scope}` | {permissions} |")
    return _TABLE.sub(lambda found: "\n".join([found[1], *lines, "", found[2]]), text)


if __name__ == "__main__":
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    document()
    FILE.write_text(written(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
