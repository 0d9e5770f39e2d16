"""Write docs/reference/errors.md: the exceptions, which public functions raise them, and the refusals of REST."""

from __future__ import annotations

import functools
import inspect
import re

from pgq import errors
from pgq.urls import problems
from tests.support.reference import layout, members
from tests.support.reference.docstrings import markdown, table
from tests.support.reference.signatures import signature

_HEAD = """\
# Exceptions and refusals

All exceptions of pgq are in `pgq.errors` and are `PgqError`. Wrong input is a `ValueError` as well, raised before
anything is written, with a text that begins with the name of what is wrong: `timeout: must be ...`. PostgreSQL's own
errors come as Django raises them (`OperationalError` and others). What a task itself raises is stored with its path,
as `builtins.ValueError`; the names below can stand there, too:
`Failure.objects.filter(exception="pgq.errors.TaskTimeout")`.
"""
_REST = """\
## Refusals of REST

Problem documents (RFC 9457), `application/problem+json`: `type`, `title`, `status`, `detail` (for people: what is
wrong and what to do) and, where parameters or fields are wrong, `errors` by their names. Which route may answer what
is in `openapi.json`, see [rest.md](rest.md).
"""


def written() -> str:
    """Return the page as it should be."""
    tree = markdown(inspect.getdoc(errors)).partition("\n\n")[2]
    rows = [
        (str(status), f"`{problems.TYPE}{word}`", problems.phrase(status), problems.MEANINGS[status])
        for status, word in problems.WORDS.items()
    ]
    return "\n".join(
        [
            _HEAD,
            tree,
            "## Exceptions\n",
            *(_of(f"pgq.errors.{name}") for name in errors.__all__),
            _REST,
            table(("status", "type", "title", "when"), *rows),
        ]
    )


def _of(full: str) -> str:
    kind = getattr(errors, full.rpartition(".")[2])
    bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
    parts = [f"### `{full}`", f"Bases: {bases}.", markdown(members.own_doc(kind))]
    if "__init__" in vars(kind):
        parts.insert(2, signature(kind.__name__, kind))
    for name, member, doc in members.members(kind):
        parts += [signature(f"{kind.__name__}.{name}", member, drop_self=True), markdown(doc)]
    by = raisers().get(kind.__name__, [])
    if by:
        parts.append(f"Raised by {', '.join(layout.link(name, 'errors.md') for name in by)}.")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


@functools.cache
def raisers() -> dict[str, list[str]]:
    """Return which public names say in their docstrings that they raise an exception."""
    found: dict[str, list[str]] = {}
    for name, page in layout.places():
        value = members.value_of(name)
        if not members.has_doc(value) or page == "errors.md" or layout.placed()[name] != (name, page):
            continue
        docs = [inspect.getdoc(value) or ""]
        if inspect.isclass(value):
            docs += [doc for _, _, doc in members.members(value) if doc]
        for exception in sorted({each for doc in docs for each in _raised(doc)}):
            found.setdefault(exception, []).append(name)
    return found


def _raised(doc: str) -> set[str]:
    """Return the names of exceptions in the section Raises of a docstring."""
    section = re.search(r"^Raises:\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    heads = re.findall(r"^    ([A-Z][\w, ]*):", section[1], re.MULTILINE) if section else []
    return {each.strip() for head in heads for each in head.split(",")}
