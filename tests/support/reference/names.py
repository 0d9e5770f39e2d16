"""The part of a page that tells of one public name: how it is called, what it does, its members."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator

from tests.support.reference import layout, members
from tests.support.reference.docstrings import capital, filled, markdown
from tests.support.reference.signatures import signature


def of(full: str) -> str:
    """Return the part of the page."""
    return "\n".join(part.rstrip("\n") + "\n" for part in _parts(full) if part.strip())


def _parts(full: str) -> Iterator[str]:
    module, name = members.found(full)
    value = getattr(module, name)
    yield f"### `{full}`"
    if inspect.isclass(value):
        yield from _class(value)
    elif inspect.isroutine(value):
        yield signature(name, value)
        yield markdown(value.__doc__)
    else:
        if isinstance(value, str | int | float | tuple):
            yield f"```python\n{name} = {value!r}\n```"
        yield filled(capital(members.comment(module, name)))


def _class(kind: type) -> Iterator[str]:
    if issubclass(kind, BaseException):
        yield f"An exception; its bases: {', '.join(f'`{base.__name__}`' for base in kind.__bases__)}."
    if _has_own_init(kind):
        yield signature(kind.__name__, kind)
    yield markdown(members.own_doc(kind))
    yield "\n".join(
        f"* `{name}: {annotation}`: {comment}" if comment else f"* `{name}: {annotation}`"
        for name, annotation, comment in members.fields(kind)
    )
    elsewhere: dict[str, list[str]] = {}
    for name, member, doc in members.members(kind):
        teller = layout.teller(name, member)
        if members.value_of(teller) is not kind:
            elsewhere.setdefault(teller, []).append(f"`{name}`")
            continue
        if isinstance(member, property | functools.cached_property):
            yield f"#### `{kind.__name__}.{name}`"
        else:
            yield signature(f"{kind.__name__}.{name}", getattr(kind, name), drop_self=inspect.isfunction(member))
        yield markdown(doc)
    for teller, told in elsewhere.items():
        yield filled(f"Besides, as those of {layout.link(teller, layout.placed()[teller][1])}: {', '.join(told)}.")


def _has_own_init(kind: type) -> bool:
    from django.db import models

    if issubclass(kind, models.Model):
        return False
    return any("__init__" in vars(base) for base in kind.__mro__ if base.__module__.startswith("pgq."))
