"""Endpoints: what each takes, whom it wants, what it answers; and the views that Django calls.

An endpoint is a function with a declaration. The routes, the checks of a request and the OpenAPI file all follow from
the declarations, so none of them can say what the others do not.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.core.exceptions import RequestDataTooBig
from django.db import DataError, Error, connections, transaction
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.http.request import UnreadablePostError
from django.urls import URLPattern, path

from pgq import conf
from pgq.conf import get_settings, places
from pgq.models import QueuedTask, Task
from pgq.store import outage
from pgq.store.bounded import reading
from pgq.store.outage import MISSING, cause_of
from pgq.urls import access, kinds
from pgq.urls.access import Caller
from pgq.urls.kinds import Kind
from pgq.urls.problems import Problem, unknown

logger = logging.getLogger("pgq")

#: Seconds that one statement of a request may take.
PATIENCE = 2.0
#: Bytes that a body may have.
LARGEST_BODY = 1_000_000
#: Kinds of the parts of a path, by their names.
PARTS: Mapping[str, Kind] = {
    "id": kinds.task_id(),
    "queue": kinds.text(200),
    "func": kinds.text(500),
    "group": kinds.text(200),
    "schedule": kinds.whole(1, 2**63 - 1),
}
#: Parameters of each endpoint.
OF_ALL: Mapping[str, Kind] = {"database": kinds.text(100)}
#: Parts that may hold slashes.
_DEEP = frozenset({"queue", "func", "group"})


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may be answered: who asks, the parts of the path, the query and the body, all checked."""

    request: HttpRequest
    caller: Caller
    parts: Mapping[str, Any]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    #: Of a reading endpoint: in its transaction.
    cursor: Any = None
    #: The database that the request is about; None: that of the settings.
    alias: str | None = None

    @property
    def database(self) -> str:
        return get_settings().database


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answers, unless it is 200 and no more than a body."""

    body: Any
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    #: What it does, in a line.
    summary: str
    #: The scope that a token needs.
    scope: str
    #: The permissions of pgq's models that a login needs.
    permissions: tuple[str, ...]
    #: The schema that it answers with, by name.
    answer: str
    query: Mapping[str, Kind]
    body: Mapping[str, Kind] | None
    required: tuple[str, ...]
    #: Statuses besides 200 that are answers, and those of refusals besides what any may be refused with.
    answers: tuple[int, ...]
    refusals: tuple[int, ...]
    #: Whether it reads by the cursor of its call.
    reads: bool
    handler: Callable[[Call], Any]

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.handler)

    @property
    def parts(self) -> list[str]:
        """The names of the parts of its path."""
        return re.findall(r"\{(\w+)\}", self.path)


#: All endpoints, in the order of their declarations. Process-wide because routes are.
ENDPOINTS: list[Endpoint] = []


def endpoint(
    method: str,
    where: str,
    summary: str,
    *,
    scope: str,
    permissions: tuple[str, ...] = (),
    answer: str,
    query: Mapping[str, Kind] | None = None,
    body: Mapping[str, Kind] | None = None,
    required: tuple[str, ...] = (),
    answers: tuple[int, ...] = (),
    refusals: tuple[int, ...] = (),
    reads: bool | None = None,
    into: list[Endpoint] = ENDPOINTS,
) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    """Declare what a function answers, among the endpoints of `into`; see `Endpoint`."""

    def declare(handler: Callable[[Call], Any]) -> Callable[[Call], Any]:
        does_read = method == "GET" and not inspect.iscoroutinefunction(handler) if reads is None else reads
        into.append(
            Endpoint(
                method=method,
                path=where,
                summary=summary,
                scope=scope,
                permissions=permissions,
                answer=answer,
                query=query or {},
                body=body,
                required=required,
                answers=answers,
                refusals=refusals,
                reads=does_read,
                handler=handler,
            )
        )
        return handler

    return declare


# ------------------------------------------------------------------------------------------------- views


def patterns(endpoints: Iterable[Endpoint]) -> list[URLPattern]:
    """Return the routes of endpoints, those with fixed parts before those with any."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for each in endpoints:
        by_path.setdefault(each.path, {})[each.method] = each
    # "queues/{queue}/pause" before "queues/{queue}", whose part may hold a slash.
    ordered = sorted(by_path, key=lambda where: (-where.count("/"), where.count("{"), where))
    return [path(_route(where), _view(by_path[where]), name=_name(where)) for where in ordered]


def _route(where: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda part: f"<{'path' if part[1] in _DEEP else 'str'}:{part[1]}>", where)


def _name(where: str) -> str:
    return re.sub(r"\W+", "-", where).strip("-")


def _view(methods: Mapping[str, Endpoint]) -> Callable[..., Any]:
    if any(each.is_async for each in methods.values()):

        async def view(request: HttpRequest, **parts: str) -> HttpResponseBase:
            return await _respond_async(request, methods, parts)
    else:

        def view(request: HttpRequest, **parts: str) -> HttpResponseBase:  # type: ignore[misc]
            return _respond(request, methods, parts)

    # A request has no transaction of its own, whatever ATOMIC_REQUESTS says: a long poll would hold it open.
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(view)
    # Programs have no CSRF token and no login; `access.identify` judges them, and asks browsers for theirs.
    view.csrf_exempt = True  # type: ignore[attr-defined]
    view.login_required = False  # type: ignore[attr-defined]
    view.endpoints = tuple(methods.values())  # type: ignore[attr-defined]
    return view


def _respond(request: HttpRequest, methods: Mapping[str, Endpoint], parts: Mapping[str, str]) -> HttpResponseBase:
    try:
        wanted = _chosen(request, methods)
        call = _read(request, wanted, parts)
        with _at(call):
            return _sealed(_response(_answered(wanted, call)))
    except Exception as error:
        return _sealed(_refused(error))


async def _respond_async(
    request: HttpRequest, methods: Mapping[str, Endpoint], parts: Mapping[str, str]
) -> HttpResponseBase:
    try:
        wanted = _chosen(request, methods)
        call = await sync_to_async(_read)(request, wanted, parts)
        with _at(call):
            answer = await wanted.handler(call) if wanted.is_async else await sync_to_async(_answered)(wanted, call)
        return _sealed(_response(answer))
    except Exception as error:
        return _sealed(_refused(error))


def _answered(wanted: Endpoint, call: Call) -> Any:
    if not wanted.reads:
        return wanted.handler(call)
    with reading(call.database, seconds=PATIENCE) as cursor:
        return wanted.handler(replace(call, cursor=cursor))


def _at(call: Call) -> AbstractContextManager[None]:
    """Have the database of a request at hand."""
    return nullcontext() if call.alias is None else conf.at(call.alias)


def _alias(parts: Mapping[str, Any], given: str | None) -> str | None:
    """Return the database that a request is about: the one that it names, or where its task or its queue lies."""
    aliases = conf.aliases()
    if given is not None:
        if given not in aliases:
            raise Problem(400, "There is no such database.", {"database": f"must be one of {', '.join(aliases)}"})
        return given
    if len(aliases) == 1:
        return None
    if "queue" in parts:
        return conf.database_of(parts["queue"])
    if "id" not in parts:
        return None

    def look() -> str | None:
        alias = get_settings().database
        rows: tuple[Any, ...] = (QueuedTask.objects.using(alias), Task.objects.using(alias))
        return alias if any(each.filter(pk=parts["id"]).exists() for each in rows) else None

    return places.first(look)


def _chosen(request: HttpRequest, methods: Mapping[str, Endpoint]) -> Endpoint:
    method = "GET" if request.method == "HEAD" else request.method or ""
    if method not in methods:
        allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
        raise Problem(405, f"Here only {allowed} will do.", headers={"Allow": allowed})
    return methods[method]


def _read(request: HttpRequest, wanted: Endpoint, parts: Mapping[str, str]) -> Call:
    """Check a request: first who asks, so that a stranger learns nothing from the rest."""
    caller = access.identify(request)
    caller.require(wanted.scope, *wanted.permissions)
    try:
        known = {name: PARTS[name].read(PARTS[name].of_text(text)) for name, text in parts.items()}
    except ValueError:
        raise unknown("thing") from None
    given: dict[str, Any] = {}
    fields = {**wanted.query, **OF_ALL}
    for name, values in request.GET.lists():
        kind = fields.get(name)
        given[name] = values if kind is None or len(values) != 1 else kind.of_text(values[0])
    try:
        query = kinds.read_all(given, fields, required=())
        body = {} if wanted.body is None else kinds.read_all(_body(request), wanted.body, required=wanted.required)
    except kinds.Wrong as wrong:
        raise Problem(400, f"{wrong}."[:2000], wrong.errors) from None
    return Call(request, caller, known, query, body, alias=_alias(known, query.pop("database", None)))


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        length = int(request.headers.get("Content-Length") or 0)
    except ValueError:
        length = 0
    if length > LARGEST_BODY:
        raise Problem(413, f"The body may have {LARGEST_BODY:,} bytes.")
    content = request.body
    if len(content) > LARGEST_BODY:
        raise Problem(413, f"The body may have {LARGEST_BODY:,} bytes.")
    if not content:
        return {}
    if request.content_type != "application/json":
        raise Problem(415, "The body must be application/json.")
    try:
        found = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Problem(400, "The body is no JSON that can be read.") from None
    if not isinstance(found, dict):
        raise Problem(400, "The body must be a JSON object.")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _response(answer: Any) -> HttpResponseBase:
    if isinstance(answer, HttpResponseBase):
        return answer
    if not isinstance(answer, Answer):
        answer = Answer(answer)
    return JsonResponse(answer.body, status=answer.status)


def _sealed(response: HttpResponseBase) -> HttpResponseBase:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _refused(error: Exception) -> HttpResponseBase:
    """Return the response for what was raised; what is a fault of pgq or of its surroundings is raised again."""
    if isinstance(error, Problem):
        return error.response()
    if isinstance(error, RequestDataTooBig):
        return Problem(413, "The body is larger than DATA_UPLOAD_MAX_MEMORY_SIZE.").response()
    if isinstance(error, UnreadablePostError):
        return Problem(400, "The body did not arrive.").response()
    if isinstance(error, DataError | psycopg.DataError):
        return Problem(400, "PostgreSQL cannot hold one of these values.").response()
    if isinstance(error, Error | psycopg.Error):
        # What PostgreSQL says is for the log: it may quote values of rows.
        logger.warning("REST: PostgreSQL refused: %s: %s", type(error).__name__, outage.in_a_log(error))
        return Problem(503, _in_words(error), headers={"Retry-After": "5"}).response()
    raise error


def _in_words(error: BaseException) -> str:
    """Say what PostgreSQL lacks, without its own words."""
    cause = cause_of(error)
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return f"A statement took longer than {PATIENCE:g} s. Ask for less, or later."
    if isinstance(cause, MISSING):
        return "The tables of pgq are missing or old. Run: manage.py migrate pgq"
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return "The role of this process may not do that in PostgreSQL."
    return "PostgreSQL does not answer, or refuses. Try again."
