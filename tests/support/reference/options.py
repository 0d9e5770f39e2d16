"""Write docs/reference/options.md: what may be said of a task, and by whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from pgq.records import options
from pgq.records.options import By, TaskOptions
from pgq.tasks import words
from tests.support.reference import layout, names
from tests.support.reference.docstrings import capital, table

_HEAD = """\
# Options of a task

What can be said of a task besides its function and its arguments. `@task` says it for all calls; one call says it by
`.using(...)`, `enqueue_many`, `enqueue_from`, `async_task` or `schedule`, and what a call says comes before what
`@task` says. `None`: it is not given. What no option says, the [settings](settings.md) say.

| said by | as in |
|---|---|
| `@task` | `@task(timeout=30)`, for all calls |
| call | `send.using(timeout=30).enqueue(7)`, `enqueue_many(send, calls, timeout=30)`, `enqueue_from(..., timeout=30)` |
| `async_task` | a keyword: `async_task(send, 7, timeout=30)`; *q_options*: in `q_options={...}` alone |
| `schedule` | the same of `schedule(...)`, for each task of the schedule; *own*: a parameter of `schedule` itself |
"""
#: Parameters of `schedule` itself, for the schedule as a whole.
_OF_SCHEDULE = ("queue", "priority", "name", "hook")


def written() -> str:
    """Return the page as it should be."""
    parts = [_HEAD, table(("option", "type", "said by", "meaning"), *_rows())]
    parts.append(_other_words())
    parts.append("## Options that are objects\n")
    return "\n".join([*parts, *(names.of(name) for name in layout.OTHERS["options.md"])])


def _rows() -> list[tuple[str, ...]]:
    rows = []
    for field in dataclasses.fields(TaskOptions):
        by = field.metadata.get("by", By.INNER)
        if by is By.INNER:
            continue
        name = field.name
        kind = str(field.type).removesuffix(" | None").replace(" | ", " or ")
        rows.append((f"`{name}`", f"`{kind}`", ", ".join(_said_by(name, by)), capital(field.metadata["meaning"])))
    return rows


def _said_by(name: str, by: By) -> Iterator[str]:
    if By.TASK in by:
        yield "`@task`"
    if By.CALL in by:
        yield "call"
        for what, known in (("async_task", words.WORDS), ("schedule", words.WORDS_OF_SCHEDULE)):
            if what == "schedule" and name in _OF_SCHEDULE:
                yield "`schedule` (own)"
            elif name in known or any(other in known for other, own in words._OTHER_WORDS.items() if own == name):
                yield f"`{what}`"
            elif name in words._IN_Q_OPTIONS:
                yield f"`{what}` (q_options)"


def _other_words() -> str:
    django = ", ".join(f"`{alias}` is `{name}`" for alias, name in options._ALIASES.items())
    theirs = ", ".join(f"`{alias}` is `{name}`" for alias, name in words._OTHER_WORDS.items())
    return (
        f"Other words for them. Of django.tasks, everywhere: {django}. Of Django-Q, in `async_task` and `schedule`: "
        f"{theirs}.\n`async_task` and `enqueue_many` take `sync` besides, True: run it here and now; and `broker`, "
        "which is ignored.\n"
    )
