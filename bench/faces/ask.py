"""All that can be asked of pgq: each page, each list of the admin, each endpoint, command and view, in several ways."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from bench.faces.settings import SECRET
from pgq.admin.dashboard.site import PAGES
from pgq.models import Failure, QueuedTask, Schedule, Success, WorkerPool
from pgq.urls.endpoint import ENDPOINTS, Endpoint

QUEUE, BUSY, FUNC, GROUP = "queue_7", "queue_0", "shop.tasks.function_0", "tenant 7"
RARE, ERROR = "shop.tasks.function_199", "shop.errors.Error7"
#: Endpoints that are left out: one that starts tasks of the project, and one that waits as long as it is told to.
LEFT_OUT = frozenset({("POST", "v1/tasks"), ("GET", "v1/tasks/{id}/result")})


@dataclass(frozen=True, slots=True)
class Ask:
    """Something that is asked."""

    #: page, admin, rest, command or sql.
    kind: str
    name: str
    #: Asks it, and returns how many bytes came.
    do: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Known:
    """What is there to be asked for."""

    ready: str
    waiting: str
    parked: str
    running: str
    held: str
    done: str
    failed: str
    fingerprint: str
    pool: str
    schedule: int

    @classmethod
    def of(cls) -> Known:
        """Look for a task of each kind, in the middle of its kind where that can be had."""
        ready = "lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL"
        queued = f"SELECT id FROM pgq_queue WHERE {{}} AND queue = '{BUSY}' ORDER BY position DESC LIMIT 1"
        failed = "SELECT id FROM pgq_task WHERE NOT success ORDER BY id DESC OFFSET 100 LIMIT 1"
        return cls(
            ready=_hex(queued.format(f"{ready} AND key IS NULL")),
            waiting=_hex(queued.format("run_after > now()")),
            parked=_hex(queued.format("parked IS NOT NULL")),
            running=_hex("SELECT id FROM pgq_queue WHERE lock IS NOT NULL LIMIT 1"),
            held=_hex(queued.format(f"{ready} AND key IS NOT NULL")),
            done=_hex("SELECT id FROM pgq_task WHERE success ORDER BY id DESC OFFSET 100 LIMIT 1"),
            failed=_hex(failed),
            fingerprint=_value(f"SELECT pgq_fingerprint(func, exception, message) FROM pgq_task WHERE id = ({failed})"),
            pool=_value("SELECT id::text FROM pgq_worker LIMIT 1"),
            schedule=_value("SELECT max(id) FROM pgq_schedule"),
        )

    @property
    def tasks(self) -> dict[str, str]:
        names = ("ready", "waiting", "parked", "running", "held", "done", "failed")
        return {name: getattr(self, name) for name in names}


def _value(text: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(text)
        row = cursor.fetchone()
    if row is None:
        raise RuntimeError(f"nothing is there: {text}")
    return row[0]


def _hex(text: str) -> str:
    return str(_value(text)).replace("-", "")


def everything(client: Client, known: Known) -> list[Ask]:
    """Return all that is asked."""
    return [*_pages(client, known), *_lists(client, known), *_endpoints(known), *_commands(known), *_views(known)]


# ------------------------------------------------------------------------------------------------- pages


def _pages(client: Client, known: Known) -> Iterator[Ask]:
    arguments: dict[str, list[tuple[str, ...]]] = {
        "queue": [(BUSY,), (QUEUE,)],
        "function": [(FUNC,), (RARE,)],
        "error": [(known.fingerprint,)],
        "task": [(id,) for id in known.tasks.values()],
        "pool": [(known.pool,)],
        "flow": [(GROUP,)],
    }
    ranges = ["range=8h", "range=3d", "range=14d", "range=1y"]
    searches = [
        known.done, "tenant", f"func:{FUNC}", f"func:{RARE} state:failed", f"queue:{QUEUE} state:ready",
        f"queue:{BUSY}",
        f"group:{GROUP.replace(' ', '*')}", "state:parked", "state:waiting", "state:running", "state:failed since:1h",
        "exception:Error7", "message:address", "name:report", "nothing-has-this-word",
    ]  # fmt: skip
    queries: dict[str, list[str]] = {
        "changelist": [*ranges, "fragment=1"],
        "queues": ranges[:2],
        "queue": ranges,
        "functions": ranges,
        "function": ranges,
        "errors": ["since=1h"],
        "tasks": [urlencode({"q": text}) for text in searches],
        "audit": ["user=admin", "before=1000"],
    }
    for page in PAGES:
        for given in arguments.get(page.name, [()]):
            address = reverse(f"admin:pgq_dashboard_{page.name}", args=given)
            for query in ["", *queries.get(page.name, [])]:
                yield _page(client, "page", f"{address}?{query}" if query else address)
    for act, given in (
        ("pause", (BUSY,)), ("retry", (known.failed,)), ("run_now", (known.waiting,)), ("cancel", (known.ready,)),
        ("retry_alike", (known.fingerprint,)),
    ):  # fmt: skip
        yield _page(client, "page", reverse(f"admin:pgq_dashboard_{act}", args=given))


def _page(client: Client, kind: str, address: str) -> Ask:
    def do() -> int:
        # (Of the small form there is no hundredth page: the admin leads back to the first.)
        response = client.get(address, follow=True)
        content = b"".join(response) if response.streaming else response.content
        if response.status_code != 200 or b"pgq-fault" in content:
            at = content.find(b"pgq-fault")
            raise RuntimeError(f"{response.status_code}: {content[max(at, 0) : at + 200].decode(errors='replace')}")
        return len(content)

    return Ask(kind, address, do)


def _lists(client: Client, known: Known) -> Iterator[Ask]:
    words, group = "nothing-has-this", urlencode({"group": GROUP})
    finished = [
        "", "p=3", "p=100", f"queue={QUEUE}", f"queue={BUSY}", "since=hour", "since=week", f"q={words}", "q=function_7",
        f"q={known.done}", urlencode({"q": GROUP}), group, "group=no", "schedule=5", urlencode({"function": FUNC}),
    ]  # fmt: skip
    queries: dict[Any, list[str]] = {
        QueuedTask: [
            "", "p=3", "p=100", f"queue={QUEUE}", f"queue={BUSY}", "state=ready", "state=running", "state=waiting",
            "state=parked", f"queue={QUEUE}&state=waiting", f"queue={BUSY}&state=ready", f"q={words}", "q=function_7",
            f"q={known.ready}", urlencode({"q": GROUP}), group, "group=no",
        ],
        Success: finished,
        Failure: [*finished, "end=failed", "end=cancelled", "q=address",
            urlencode({"exception_is": ERROR}),
        ],
        Schedule: ["", "p=2", "q=schedule 7", "paused__exact=1", "schedule_type__exact=C"],
        WorkerPool: [""],
    }  # fmt: skip
    for model, asked in queries.items():
        address = reverse(f"admin:pgq_{model._meta.model_name}_changelist")
        for query in asked:
            yield _page(client, "admin", f"{address}?{query.replace(' ', '+')}" if query else address)
    rows = {
        QueuedTask: [known.ready, known.held, known.waiting], Success: [known.done], Failure: [known.failed],
        Schedule: [known.schedule],
    }  # fmt: skip
    for model, pks in rows.items():
        for pk in pks:
            yield _page(client, "admin", reverse(f"admin:pgq_{model._meta.model_name}_change", args=[pk]))
    yield _page(client, "admin", reverse("admin:index"))


# ------------------------------------------------------------------------------------------------- REST


def _endpoints(known: Known) -> Iterator[Ask]:
    parts = {
        "id": known.done, "queue": QUEUE, "func": FUNC, "group": GROUP, "schedule": str(known.schedule),
    }  # fmt: skip
    queries: dict[str, list[dict[str, Any]]] = {
        "v1/tasks": [
            {}, {"limit": 200}, {"state": "failed", "limit": 200}, {"state": "ready", "queue": QUEUE},
            {"func": RARE}, {"group": GROUP}, {"exception": ERROR}, {"state": "parked"}, {"queue": "no"},
        ],
        "v1/tasks/{id}": [{}, {"include": "payload"}],
        "v1/series": [
            {"metric": metric, "from": begin, **more}
            for metric in ("ended", "run_p95", "ready", "arrived")
            for begin in ("-1h", "-14d", "-399d")
            for more in ({}, {"by": "queue"}, {"queue": QUEUE})
        ],
        "v1/errors": [{}, {"queue": QUEUE}],
    }  # fmt: skip
    bodies: dict[str, list[dict[str, Any]]] = {
        "v1/tasks/bulk": [
            {"action": "cancel"}, {"action": "cancel", "filter": {"queue": QUEUE}},
            {"action": "retry", "filter": {"func": RARE}}, {"action": "retry", "filter": {"exception": ERROR}},
            {"action": "run-now", "filter": {"state": "parked"}},
        ],
        "v1/marks": [{"label": "now"}],
        "v1/schedules": [{"func": "bench.tasks.noop", "schedule_type": "D"}],
    }  # fmt: skip
    client = Client(headers={"Authorization": f"Bearer {SECRET}"})
    for each in ENDPOINTS:
        if (each.method, each.path) in LEFT_OUT or each.method in ("PATCH", "DELETE"):
            continue
        for query in queries.get(each.path, [{}]) if each.method == "GET" else [{}]:
            for body in bodies.get(each.path, [{}]):
                yield _endpoint(client, each, parts, query, body)
        if each.path == "v1/tasks/{id}/why":
            for id in known.tasks.values():
                yield _endpoint(client, each, {**parts, "id": id}, {}, {})
    for path in ("", "status/", "schedules/", "tasks/?limit=200"):
        yield Ask("rest", f"GET /cfg/{path}", lambda path=path: _content(client.get(f"/cfg/{path}")))  # type: ignore[misc]


def _endpoint(
    client: Client, each: Endpoint, parts: Mapping[str, str], query: Mapping[str, Any], body: Mapping[str, Any]
) -> Ask:
    if "from" in query:
        query = {**query, "from": _moment(str(query["from"]))}
    address = f"/pgq/{each.path.format(**parts)}" + (f"?{urlencode(query)}" if query else "")

    def do() -> int:
        if each.method == "GET":
            return _content(client.get(address))
        return _content(
            client.post(address, json.dumps(body), content_type="application/json"), 200, 201, 202, 400, 404, 409
        )

    return Ask("rest", f"{each.method} {address}" + (f" {json.dumps(body)}" if body else ""), do)


def _moment(back: str) -> str:
    unit = {"h": "hours", "d": "days"}[back[-1]]
    return str(
        _value(f"SELECT to_char(now() - interval '{back[1:-1]} {unit}', 'YYYY-MM-DD\"T\"HH24:MI:SSOF') || ':00'")
    )


def _content(response: Any, *good: int) -> int:
    # /health is 503 where no pool runs the backlog, and 404 what is not there: a function that is not registered.
    if response.status_code not in (good or (200, 404, 503)):
        raise RuntimeError(f"{response.status_code}: {response.content[:300]}")
    return len(response.content)


# ------------------------------------------------------------------------------------------------- commands, SQL


def _commands(known: Known) -> Iterator[Ask]:
    yield from (
        _command(*words)
        for words in (
            ("pgq_info",), ("pgq_info", "--json"), ("pgq_monitor", "--run-once"),
            *(("pgq_monitor", "--run-once", "--view", view) for view in ("queues", "workers", "failures", "schedules")),
            ("pgq_memory", "--run-once"), ("pgq_queues",), ("pgq_queues", "list", QUEUE), ("pgq_queues", "--json"),
            ("pgq_queues", "pause", QUEUE), ("pgq_queues", "resume", QUEUE), ("pgq_check",), ("pgq_schedules",),
            ("pgq_schedules", "show", "schedule 7"), ("pgq_mark", "here"),
            ("pgq_queues", "cancel", "--queue", QUEUE, "--limit", "100", "--dry-run"),
            ("pgq_queues", "retry", "--exception", ERROR, "--limit", "100", "--dry-run"),
            *(("pgq_why", id) for id in known.tasks.values()),
        )
    )  # fmt: skip


def _command(*words: str) -> Ask:
    def do() -> int:
        out = io.StringIO()
        try:
            with redirect_stdout(out):
                call_command(*words, stdout=out)
        except SystemExit as end:
            # What a command has to say of what it found, as pgq_check.
            if end.code not in (0, 1):
                raise RuntimeError(out.getvalue()) from None
        return len(out.getvalue())

    return Ask("command", " ".join(words), do)


def _views(known: Known) -> Iterator[Ask]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'v' AND relname LIKE 'pgq\\_%' ORDER BY 1")
        views = [row[0] for row in cursor.fetchall()]
    yield from (_statement(f"SELECT * FROM {view}") for view in views)
    yield from (_statement(f"SELECT * FROM pgq_why('{id}')") for id in known.tasks.values())
    yield _statement("SELECT * FROM pgq_check()")


def _statement(text: str) -> Ask:
    def do() -> int:
        with connection.cursor() as cursor:
            cursor.execute(text)
            return len(str(cursor.fetchall()))

    return Ask("sql", text, do)
