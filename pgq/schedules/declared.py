"""The schedules that stand beside functions: what ``@task(schedule=...)`` was given, by the path of the function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pgq.config import Cron, Every, ScheduleConfig

#: What one schedule beside a function may be; a text is a cron expression. (As text: most processes need no config.)
Declared: TypeAlias = "str | Cron | Every | ScheduleConfig"

#: Process-wide, as the registry of functions is.
_declared: dict[str, tuple[Any, ...]] = {}


def declare(path: str, schedules: Any) -> None:
    """Note the schedules of the function of that path, in the place of those of an earlier one (reload)."""
    _declared.pop(path, None)
    if schedules is not None:
        _declared[path] = tuple(schedules) if isinstance(schedules, list | tuple) else (schedules,)


def all_declared() -> list[tuple[str, tuple[Any, ...]]]:
    """Return the paths and what was noted, sorted by path."""
    return sorted(_declared.items())
