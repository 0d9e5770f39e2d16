"""Write docs/reference/options.md: what may be said of a task, and by whom."""

from __future__ import annotations

import dataclasses

from pgq import options
from pgq.options import By, TaskOptions
from pgq.tasks import words
from tests.support.reference import layout, names
from tests.support.reference.docstrings import capital, table

_HEAD = """\
# Options of a task

What can be said of a task besides its function and its arguments. `@task` says it for all calls; one call says it by
`.using(...)`, `enqueue_many`, `enqueue_from`, `async_task` or `schedule`, and what a call says comes before what
`@task` says. `None`: it is not given. What no option says, the [settings](settings.md) say.

| column below | where |
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
    parts = [_HEAD, table(("option", "type", "`@task`", "call", "`async_task`", "`schedule`", "meaning"), *_rows())]
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
        task, call = ("yes" if each in by else "" for each in (By.TASK, By.CALL))
        as_keyword = _how(name, words.WORDS) if By.CALL in by else ""
        of_schedule = "own" if name in _OF_SCHEDULE else _how(name, words.WORDS_OF_SCHEDULE) if By.CALL in by else ""
        rows.append((f"`{name}`", f"`{kind}`", task, call, as_keyword, of_schedule, capital(field.metadata["meaning"])))
    return rows


def _how(name: str, known: frozenset[str]) -> str:
    if name in known or any(other in known for other, own in words._OTHER_WORDS.items() if own == name):
        return "yes"
    return "q_options" if name in words._IN_Q_OPTIONS else ""


def _other_words() -> str:
    django = ", ".join(f"`{alias}` is `{name}`" for alias, name in options._ALIASES.items())
    theirs = ", ".join(f"`{alias}` is `{name}`" for alias, name in words._OTHER_WORDS.items())
    return (
        f"Other words for them. Of django.tasks, everywhere: {django}. Of Django-Q, in `async_task` and `schedule`: "
        f"{theirs}.\n`async_task` and `enqueue_many` take `sync` besides, True: run it here and now; and `broker`, "
        "which is ignored.\n"
    )
