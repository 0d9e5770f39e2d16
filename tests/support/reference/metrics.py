"""Write docs/reference/metrics.md: what Prometheus can scrape, and what OpenTelemetry is given."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pgq.contrib.otel import attributes, measuring, tracing
from pgq.urls import exposition, prometheus
from tests.support.reference import members
from tests.support.reference.docstrings import capital, table

_HEAD = """\
# Metrics

What is served to Prometheus, and what OpenTelemetry is given. How to scrape and to alert:
[rest.md](rest.md#prometheus); how to trace: [observability.md](../operate/observability.md); what is counted, and the
tables that SQL can read: [metrics.md](../operate/metrics.md).

## Prometheus

`GET metrics` of [REST](rest.md), as text 0.0.4 or OpenMetrics 1.0. The numbers are the database's, so each process
answers the same. A metric without samples is left out.
"""
_BUCKETS = """\
The buckets of both histograms are powers of two, from half a millisecond to more than two hours. `queue` and `func`
are bounded: what is beyond is added up as `(other)`, see [metrics.md](../operate/metrics.md).
"""
_OTEL = """\
## OpenTelemetry: metrics

By `pgq.contrib.otel`, of the process alone. The conventions are those of release 1.44 for messaging.
"""
_SPANS = """\
## OpenTelemetry: spans

| span | kind | one for each |
|---|---|---|
| `enqueue QUEUE` | producer | writing of tasks: a call of `enqueue`, or one of `enqueue_many` |
| `process QUEUE` | consumer | attempt, as a child of the enqueue, or with a link to it (`links=True`) |

An attempt that failed has the event `exception` (type, message, stacktrace); one that is tried again, the event
`retried`.
"""


def written() -> str:
    """Return the page as it should be."""
    served = [
        (f"`{one.shown}`", f"{one.kind}{_unit(one.name)}", ", ".join(f"`{label}`" for label in one.labels), one.help)
        for one in families()
    ]
    told = [(f"`{name}`", kind, unit, capital(text)) for name, kind, unit, text in instruments()]
    places = ("enqueue", "attempt", "metrics")
    spans = [
        (f"`{name}`", *("yes" if each in where else "" for each in places), said)
        for name, where, said in span_attributes()
    ]
    return "\n".join(
        [
            _HEAD,
            table(("name", "type, unit", "labels", "what"), *served),
            _BUCKETS,
            _OTEL,
            table(("name", "instrument", "unit", "what"), *told),
            _SPANS,
            table(("attribute", *places, "what"), *spans),
        ]
    )


@dataclass
class Family:
    """A metric that Prometheus can scrape."""

    name: str
    kind: str
    help: str
    labels: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The name under which PromQL finds it; of a histogram, the first part of three names."""
        return self.name + ("_total" if self.kind == exposition.COUNTER else "")


def families() -> list[Family]:
    """Return the metrics in the order of the source."""
    found: list[Family] = []
    for function in ast.walk(ast.parse(inspect.getsource(prometheus))):
        if isinstance(function, ast.FunctionDef):
            found += _families_of(function)
    return found


def _families_of(function: ast.FunctionDef) -> Iterator[Family]:
    made: dict[str, Family] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_call_of(node.value, "Family"):
            name, kind, help = node.value.args  # type: ignore[attr-defined]
            assert isinstance(node.targets[0], ast.Name)
            assert isinstance(kind, ast.Name)
            made[node.targets[0].id] = Family(name.value, getattr(exposition, kind.id), help.value)
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            one = made.get(node.func.value.id)
            if one is not None and node.func.attr.startswith("add"):
                one.labels += [word.arg for word in node.keywords if word.arg and word.arg not in one.labels]
    yield from made.values()


def _is_call_of(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _unit(name: str) -> str:
    units = {"timestamp_seconds": "Unix time", "seconds": "seconds", "bytes": "bytes", "ratio": "0 to 1"}
    return next((f", {unit}" for end, unit in units.items() if name.endswith(f"_{end}")), "")


# ------------------------------------------------------------------------------------------------- OpenTelemetry


class _Meter:
    """Notes what is created by it."""

    def __init__(self) -> None:
        self.created: list[tuple[str, str, str, str]] = []

    def __getattr__(self, name: str) -> Any:
        def create(instrument: str, unit: str, text: str, **_: Any) -> None:
            self.created.append((instrument, name.removeprefix("create_"), unit, text))

        return create


def instruments() -> list[tuple[str, str, str, str]]:
    """Return what is measured: name, kind, unit, description."""
    meter: Any = _Meter()
    measuring.Measuring(meter)
    created: list[tuple[str, str, str, str]] = meter.created
    return created


def span_attributes() -> list[tuple[str, set[str], str]]:
    """Return the attributes in the order of the source: name, where each may stand, what it is."""
    used = {
        "enqueue": _names_in(attributes, "common") | _names_in(tracing, "enqueueing", "enqueued"),
        "attempt": _names_in(attributes, "of_claim") | _names_in(tracing, "running", "_conclude"),
        "metrics": _names_in(measuring, "enqueued", "ended"),
    }
    found = []
    for node in ast.parse(inspect.getsource(attributes)).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            constant = node.targets[0].id
            where = {place for place, constants in used.items() if constant in constants}
            value = getattr(attributes, constant)
            if where and isinstance(value, str) and "." in value:
                found.append((value, where, members.comment(attributes, constant)))
    return found


def _names_in(module: ModuleType, *functions: str) -> set[str]:
    tree = ast.parse(inspect.getsource(module))
    bodies = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name in functions]
    assert len(bodies) >= len(functions), functions
    return {each.id for body in bodies for each in ast.walk(body) if isinstance(each, ast.Name)}
