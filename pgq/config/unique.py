"""`Unique` and `Debounce`: of which tasks there is one at a time, and what becomes of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pgq.ground import spans

#: Seconds: a hundred years.
LONGEST = 36_500 * 86_400
#: What becomes of a call whose key is taken.
CONFLICTS = ("skip", "replace", "reschedule", "raise", "cancel")
By = str | Sequence[str] | Literal[True] | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Unique:
    """Of the tasks with one key there is one at a time.

    Raises:
        ValueError: A part is wrong; the message names it.
    """

    #: What the key is made of: the name of an argument, several names, True (all arguments), or a function that gets
    #: the arguments of the call and returns the key (None: this call is not unique).
    key: Any = True
    #: Until when the key is taken: "start" (a worker has claimed the task), "end" (it has ended for good, retries
    #: included), or a length of time from the moment it was enqueued, whatever has become of it.
    until: Literal["start", "end"] | float | timedelta | str = "start"
    #: What becomes of a call whose key is taken. "skip": nothing, it gets the id of the task that has the key.
    #: "replace": that one gets the arguments, options and time of this call, unless it runs. "reschedule": it gets the
    #: time of this call, unless it runs. "raise": `NotUnique` is raised. "cancel": it is cancelled, or asked to stop if
    #: it runs, and this call becomes a task.
    conflict: Literal["skip", "replace", "reschedule", "raise", "cancel"] = "skip"
    #: Stands before the key; functions that have the same here share their keys. None: the function's path.
    name: str | None = None

    def __post_init__(self) -> None:
        if self.until not in ("start", "end"):
            length = spans.seconds(self.until)
            if length is None or length > LONGEST:
                raise ValueError(f"until must be 'start', 'end', or a time: {spans.FORMS}; got {self.until!r}")
            object.__setattr__(self, "until", length)
        if self.conflict not in CONFLICTS:
            raise ValueError(f"conflict must be one of {', '.join(CONFLICTS)}, got {self.conflict!r}")
        if self.name is not None and not (isinstance(self.name, str) and 0 < len(self.name.encode()) <= 500):
            raise ValueError(f"name must be a text of 1 to 500 bytes, got {self.name!r}")
        if isinstance(self.key, list | tuple):
            object.__setattr__(self, "key", tuple(self.key))
        named = self.key if isinstance(self.key, tuple) and self.key else (self.key,)
        if self.key is not True and not callable(self.key) and not all(isinstance(n, str) and n for n in named):
            raise ValueError(f"key must be the name of an argument, several, True or a function, got {self.key!r}")

    @classmethod
    def of(cls, given: Any) -> Unique:
        """Return what the option `unique` was given, as one of these.

        Raises:
            ValueError: It is none of what a key is made of.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, dict):
            return cls(**given)
        return cls(given)

    def stored(self) -> dict[str, Any]:
        """Return it as JSON has it. A function has no stored form: of it there is left that there is one."""
        key = list(self.key) if isinstance(self.key, tuple) else self.key
        stored = {"key": None if callable(key) else key, "until": self.until, "conflict": self.conflict}
        usual = {"until": "start", "conflict": "skip"}
        kept = {name: value for name, value in stored.items() if usual.get(name) != value}
        return kept if self.name is None else {**kept, "name": self.name}


@dataclass(frozen=True, slots=True)
class Debounce:
    """A task waits until its calls have been quiet for so long; the last call's arguments are those it runs with.

    Raises:
        ValueError: A part is wrong; the message names it.
    """

    #: Seconds without another call, or a timedelta, or a text such as "5s".
    quiet: Any
    #: The longest time from the first call to when the task may run; None: calls may put it off for ever.
    longest: Any = None
    #: Whose arguments the task runs with: of the "last" or of the "first" call.
    args: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        for part in ("quiet", "longest"):
            value = getattr(self, part)
            length = spans.seconds(value)
            if (length is None or length > LONGEST) and not (part == "longest" and value is None):
                raise ValueError(f"{part} must be {spans.FORMS}, got {value!r}")
            object.__setattr__(self, part, length)
        if self.longest is not None and self.longest < self.quiet:
            raise ValueError(f"longest must not be less than quiet, got {self.longest} and {self.quiet}")
        if self.args not in ("last", "first"):
            raise ValueError(f"args must be 'last' or 'first', got {self.args!r}")

    @classmethod
    def of(cls, given: Any) -> Debounce:
        """Return what the option `debounce` was given, as one of these.

        Raises:
            ValueError: It is no length of time, and no pair of two.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, dict):
            return cls(**given)
        if isinstance(given, list | tuple):
            if len(given) not in (1, 2):
                raise ValueError(f"must be (quiet, longest), got {given!r}")
            return cls(*given)
        return cls(given)

    def stored(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        stored = {"quiet": self.quiet, "longest": self.longest, "args": None if self.args == "last" else self.args}
        return {name: value for name, value in stored.items() if value is not None}
