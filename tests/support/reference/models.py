"""Write docs/reference/models.md: each model, with what the comments in migrations_sql say of its columns."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from django.db import models

from tests.support.reference import columns, layout, members
from tests.support.reference.docstrings import capital, markdown, table
from tests.support.reference.layout import public
from tests.support.reference.signatures import signature

_HEAD = """\
# Models

Django's view of the tables, with the names of Django-Q's models. Reading needs no function of pgq: filter, order and
count as with any model. What a write means: creating a `QueuedTask` enqueues it, unsigned, so it may only name a
function that is registered or allowed; `Schedule` may be created and changed; the others are written by workers and
upkeep. With several databases a manager asks the one at hand (see
[several-databases.md](../guide/several-databases.md)).

Times are aware if `USE_TZ` is on, and in the project's zone, naive, if it is off. Lengths of time are seconds unless
the name ends in `_us`. The columns have the same comments in psql: `\\d+ pgq_queue`.
"""
_OVER_TIME = """\
## Numbers over time

In the module `pgq.models.metrics`; [metrics.md](../operate/metrics.md) says what is counted. Read them by
[`pgq.status.metrics`](status.md#numbers-over-time), which bounds what it reads.
"""


def written() -> str:
    """Return the page as it should be."""
    parts = [_HEAD, "## Tasks, schedules and pools\n", *map(_of, public("pgq.models"))]
    return "\n".join([*parts, _OVER_TIME, *map(_of, public("pgq.models.metrics"))])


def undescribed() -> list[str]:
    """Return the columns of the models of which nothing is said."""
    missing = []
    for full in [*public("pgq.models"), *public("pgq.models.metrics")]:
        model = members.value_of(full)
        if inspect.isclass(model):
            missing += [f"{full}.{each.name}" for each in _columns(model) if not _meaning(model, each)]
    return missing


def _of(full: str) -> str:
    module, name = members.found(full)
    model = getattr(module, name)
    # A module, or a second name of a model.
    if not inspect.isclass(model) or model.__name__ != name:
        return f"### `{full}`\n\n{_alias(model)}\n"
    return "\n".join(part.rstrip("\n") + "\n" for part in _parts(full, model) if part.strip())


def _alias(value: Any) -> str:
    if inspect.isclass(value):
        return f"Django-Q's name for {layout.link(f'pgq.models.{value.__name__}', 'models.md')}."
    return f"A module: {value.__doc__.split(';')[0].strip()}; see [below](#numbers-over-time)."


def _parts(full: str, model: Any) -> Iterator[str]:
    yield f"### `{full}`"
    yield markdown(members.own_doc(model))
    if model._meta.proxy:
        yield f"A proxy of `{model._meta.concrete_model.__name__}`, with the same fields."
    else:
        yield f"Table `{model._meta.db_table}`. {columns.of_table(model._meta.db_table)}"
        rows = [_row(model, each) for each in _columns(model)]
        yield table(("field", "type", "meaning"), *rows)
    if model._meta.permissions:
        said = [f"`pgq.{code}` ({text[:1].lower()}{text[1:]})" for code, text in model._meta.permissions]
        yield f"Permissions besides Django's: {', '.join(said)}."
    for name, member, doc in members.members(model):
        if isinstance(member, property):
            yield f"* `{name}`: {' '.join((doc or '').split())}"
    for name, member, doc in members.members(model):
        if not isinstance(member, property):
            yield signature(f"{model.__name__}.{name}", getattr(model, name), drop_self=inspect.isfunction(member))
            yield markdown(doc)


def _columns(model: Any) -> list[Any]:
    return [] if model._meta.proxy else [each for each in model._meta.get_fields() if each.concrete and each.column]


def _row(model: Any, each: Any) -> tuple[str, ...]:
    kind = each.get_internal_type().removesuffix("Field")
    column = f", column `{each.column}`" if each.column != each.name else ""
    null = " or None" if each.null else ""
    return f"`{each.name}`{column}", f"{kind}{null}", capital(_meaning(model, each))


def _meaning(model: Any, each: models.Field[Any, Any]) -> str:
    return columns.of_column(model._meta.db_table, each.column or each.name) or str(each.help_text)
