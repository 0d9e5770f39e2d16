"""Django-Q's module of this name: the four words by which a task is called."""

from __future__ import annotations

from pgq.ground import ids


def humanize(task_id: str) -> str:
    """Return the four words of a task's id, which are its name unless it was given one.

    Raises:
        ValueError: Not an id.
    """
    id = ids.parse_id(task_id)
    if id is None:
        raise ValueError(f"task_id: must be an id (32 hex digits), got {task_id!r}")
    return ids.task_name(id)


def uuid() -> tuple[str, str]:
    """Return a new id with its four words: ``(name, id)``."""
    id = ids.new_id()
    return ids.task_name(id), id.hex
