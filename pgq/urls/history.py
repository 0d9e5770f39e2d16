"""Endpoints of numbers over time: series, marks, and what the checks found when upkeep last ran them."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from pgq.status import metrics
from pgq.store import metrics as store_metrics
from pgq.store.caller import callers_cursor
from pgq.urls import access, found, kinds
from pgq.urls.endpoint import Answer, Call, endpoint
from pgq.urls.problems import invalid

_METRICS = (*metrics.COUNTS, *metrics.GAUGES, *metrics.TIMES)
_RANGE = {"from": kinds.moment(), "to": kinds.moment()}


def _as_json(record: Any) -> Any:
    """Return a record as JSON, its moments in UTC."""
    if isinstance(record, datetime):
        return found.at(record)
    if isinstance(record, tuple):
        return [_as_json(one) for one in record]
    if dataclasses.is_dataclass(record):
        return {field.name: _as_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    return record


def _range(call: Call, hours: int) -> tuple[Any, Any]:
    end = call.query.get("to") or metrics.now(call.cursor)
    start = call.query.get("from") or end - timedelta(hours=hours)
    if start >= end:
        raise invalid(**{"from": "must be before to"})
    if end - start > timedelta(days=800):
        raise invalid(**{"from": "must be 800 days before to at most"})
    return start, end


@endpoint(
    "GET",
    "v1/series",
    "Tell a metric over time; the last hour unless from and to say otherwise",
    scope="read",
    permissions=("view_dashboard",),
    answer="SeriesList",
    query={
        **_RANGE,
        "metric": kinds.choice(*_METRICS),
        "by": kinds.choice("queue", "func", "outcome"),
        "step": kinds.whole(60, 86_400),
        "queue": kinds.text(200),
        "func": kinds.text(500),
    },
)
def series(call: Call) -> Any:
    """Return the series, those with the most first."""
    query = call.query
    if "metric" not in query:
        raise invalid(metric="is missing")
    start, end = _range(call, 1)
    step = query.get("step")
    if step is not None and step % 60:
        raise invalid(step="must be whole minutes")
    try:
        several = metrics.series(
            call.cursor,
            query["metric"],
            start=start,
            end=end,
            by=query.get("by"),
            step=step,
            queue=query.get("queue"),
            func=query.get("func"),
        )
    except ValueError as error:
        raise invalid(metric=str(error)) from None
    return {"series": [_as_json(one) for one in several]}


@endpoint(
    "GET",
    "v1/marks",
    "List the marks, such as deploys; those of the last day unless from and to say otherwise",
    scope="read",
    permissions=("view_dashboard",),
    answer="Marks",
    query=_RANGE,
)
def marks(call: Call) -> Any:
    """Return the marks, the newest first."""
    start, end = _range(call, 24)
    return {"marks": [_as_json(one) for one in metrics.marks(call.cursor, start=start, end=end)]}


@endpoint(
    "POST",
    "v1/marks",
    "Mark this moment, such as a deploy, in all charts",
    scope="act",
    permissions=("operate_dashboard",),
    answer="MarkDone",
    body={"label": kinds.text(200)},
    required=("label",),
    answers=(201,),
)
def mark(call: Call) -> Any:
    """Make a mark."""
    label = call.body["label"]
    with transaction.atomic(using=call.database), callers_cursor(call.database) as cursor:
        store_metrics.mark(cursor, label=label, kind="mark", author=call.caller.name)
    access.log(call.caller, "mark", f"marked {label!r}")
    return Answer({"label": label}, 201)


@endpoint(
    "GET",
    "v1/findings",
    "Tell what the checks found when upkeep last ran them, and since when it is so",
    scope="read",
    permissions=("view_dashboard",),
    answer="KeptFindings",
)
def findings(call: Call) -> Any:
    """Return the findings that are kept, the worst first."""
    return {"checks": [_as_json(one) for one in metrics.findings(call.cursor)]}
