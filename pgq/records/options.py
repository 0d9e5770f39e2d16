"""The options of a task, which it has besides its function and its arguments: one record, one line for each option.

An option either is a column of the task's row, or stands in the row's ``options`` column under its `key`. Every other
list of options is derived from these lines, so a new option is one line here and the code that uses it.
"""

from __future__ import annotations

import difflib
import enum
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pgq import codec
from pgq.config.unique import Debounce, Unique
from pgq.errors import EnqueueError, UnknownOption
from pgq.ground import limits
from pgq.records.option_checks import (
    Check,
    check_ack,
    check_backoff,
    check_exceptions,
    check_expires,
    check_keep,
    check_key,
    check_key_of_task,
    check_order,
    false_or,
    read_by,
    unless_empty,
)


class By(enum.Flag):
    """Where an option is given: TASK: by `@task`, for all calls; CALL: by one call; INNER: only by pgq's own code."""

    INNER = 0
    TASK = enum.auto()
    CALL = enum.auto()
    BOTH = TASK | CALL


# ------------------------------------------------------------------------------------------------- the record


def _column(
    meaning: str,
    by: By,
    *,
    of_schedule: str | None = None,
    check: Check | None = None,
    task_check: Check | None = None,
) -> Any:
    """Declare an option that is a column of the task's row.

    Args:
        of_schedule: Its key in the options of a schedule; None: the schedule has a column for it, or tasks of a
            schedule have no such option.
        task_check: The check of what `@task` gives, if that is something else.
    """
    metadata = {"meaning": meaning, "by": by, "of_schedule": of_schedule, "check": check}
    return field(default=None, metadata={**metadata, "task_check": task_check or check})


def _stored(meaning: str, by: By = By.INNER, *, key: str | None = None, check: Check | None = None) -> Any:
    """Declare an option that stands in the options column of the task's row under `key` (None: under its name)."""
    return field(default=None, metadata={"meaning": meaning, "by": by, "stored": True, "key": key, "check": check})


@dataclass(frozen=True)
class TaskOptions:
    """The options of a task. None: not given.

    Make one by `of` from a caller's arguments, by `parse` from a row, by the class from pgq's own code. The values of
    an unsigned row may be of any type, so code that uses one must expect that.
    """

    queue: str | None = _column("where it waits", By.BOTH, check=unless_empty)
    priority: int | None = _column("-100 to 100, larger is sooner", By.BOTH)
    run_after: datetime | timedelta | float | None = _column("a moment, or a delay (seconds)", By.CALL)
    name: str | int | UUID | None = _column("a text, or the key of a row", By.CALL, of_schedule="task_name")
    group: str | int | UUID | None = _column("a text, or the key of a row", By.CALL, of_schedule="group")
    hook: str | Callable[..., Any] | None = _column("called with the finished task", By.CALL)
    timeout: float | None = _column("seconds an attempt may run; -1: no limit", By.BOTH, of_schedule="timeout")
    max_attempts: int | None = _column("attempts; 0: no limit", By.BOTH, of_schedule="max_attempts")
    atomic: bool | None = _column("True: its writes, result and receipt are one commit", By.TASK)
    takes_context: bool | None = _column("True: its first argument is `context`", By.TASK)
    api: bool | None = _column("True: it may be enqueued by REST", By.TASK)
    key: str | limits.KeyOf | None = _column(
        "groups tasks for turns and limits; in `@task` the name of an argument, or a function of the arguments",
        By.BOTH,
        check=check_key,
        task_check=check_key_of_task,
    )
    concurrency: limits.Concurrency | None = _column(
        "how many may run at once, for each key; or a name and how many: ('stripe', 5)",
        By.TASK,
        check=read_by(limits.concurrency_of),
    )
    rate: limits.Rate | None = _column(
        "how many may start in any time, for each key: '100/m', a `Rate`, or a name and one of these",
        By.TASK,
        check=read_by(limits.rate_of),
    )
    order: str | None = _column(
        "'strict': a task that waits for another attempt holds back its key", By.TASK, check=check_order
    )
    unique: Unique | Literal[False] | None = _column(
        "one task at a time: the name of an argument, several, True (all), a function of them, or `Unique`; False: any",
        By.BOTH,
        check=false_or(Unique.of),
    )
    debounce: Debounce | Literal[False] | None = _column(
        "runs once its calls have been quiet for so long: a time, (quiet, longest) or `Debounce`; False: at once",
        By.BOTH,
        check=false_or(Debounce.of),
    )
    expires: datetime | float | None = _column(
        "ends as failed if it has not started by then: a moment, or a length of time from when it may run",
        By.BOTH,
        check=check_expires,
    )

    save: bool | None = _stored("False: keep no result of a success", By.BOTH)
    keep: float | bool | None = _stored(
        "how long the result is kept: seconds, a timedelta, or a text as '7d'; False: as `save=False`",
        By.BOTH,
        check=check_keep,
    )
    cached: Any = _stored("keep the result in the cache: seconds, True (for ever) or False", By.BOTH)
    ack_failure: bool | None = _stored("True: a failure is final, whatever is left", By.BOTH)
    ack: str | None = _stored("'task': settle this task by itself, at once", By.BOTH, check=check_ack)
    sensitive: bool | None = _stored("True: the admin shows digests, no values", By.BOTH)
    retry_backoff: Any = _stored(
        "pause before the next attempt: seconds, a list of them, a dict or a function; see settings.md",
        By.BOTH,
        key="backoff",
        check=check_backoff,
    )
    retry_on: list[str] | None = _stored("exceptions to retry, no others", By.BOTH, check=check_exceptions)
    no_retry_on: list[str] | None = _stored("final exceptions", By.BOTH, check=check_exceptions)

    is_unique: str | float | None = _stored("until when it was unique", key="unique")
    chain: list[Mapping[str, Any]] | None = _stored("the links that follow this one")
    chain_pass: bool | None = _stored("give the next link this one's result")
    chain_on_failure: bool | None = _stored("go on after a failure")
    collector: str | None = _stored("id of the task that waits for this one")
    index: int | None = _stored("place of its result among those collected")
    collects: str | None = _stored("group to forget once this one has its results")
    hook_of: str | None = _stored("id of the task this one is the hook of")
    forget: bool | None = _stored("forget that task once the hook has run")

    django: Mapping[str, Any] | None = _stored("what a task of django.tasks was enqueued with")
    trace: Mapping[str, str] | None = _stored("the trace it belongs to, see `pgq.ground.events.around_enqueue`")

    #: Other keys of the row's options column, from another release or an import. They stay there.
    other: Mapping[str, Any] | None = None
    #: Options that do not hold though `@task` gives them: `using` was given None for them. Not stored.
    reset: frozenset[str] | None = None

    def __post_init__(self) -> None:
        # As in `_made`: the instance holds only what is given; for all else Python finds the class's default, None.
        given = _without_none(vars(self))
        vars(self).clear()
        vars(self).update(given)

    @classmethod
    def of(cls, by: By = By.CALL, /, **given: Any) -> TaskOptions:
        """Return the options that `@task` or a call gives, checked as far as settings and registry are not needed.

        Raises:
            UnknownOption: There is no such option; the message names the nearest, and all of them.
            EnqueueError: An option has a wrong value; the message names it.
        """
        known = _KNOWN[by]
        kept: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                alias, name = name, _ALIASES.get(name, name)
                if name not in known:
                    raise unknown_option(alias, known)
                if name in given:
                    raise EnqueueError(alias, f"is another name of {name}, which is given as well; give one of them")
            check = known[name]
            checked = value if check is None or value is None else check(name, value)
            if checked is not None:
                kept[name] = checked
        return _made(kept)

    @classmethod
    def parse(cls, text: str) -> TaskOptions:
        """Return the options of a row from the text of its options column, whatever the types of the values.

        Raises:
            ValueError, RecursionError: PostgreSQL reads the text as JSON, but Python cannot.
        """
        if text == "{}":
            return NO_OPTIONS
        # The tasks of a function share a few short texts. A long one holds the links of a chain, and is not kept.
        return _parsed(text) if len(text) <= 200 else _parsed.__wrapped__(text)

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any]) -> TaskOptions:
        """Return the options of an options column that was read as JSON."""
        given = {_NAMES[key]: value for key, value in stored.items() if key in _NAMES and value is not None}
        if len(given) < len(stored):
            given["other"] = {key: value for key, value in stored.items() if key not in _NAMES} or None
            given = _without_none(given)
        return _made(given)

    def is_given(self, option: str) -> bool:
        """Whether the option of that name is given."""
        return option in vars(self)

    def but(self, **changes: Any) -> TaskOptions:
        """Return these options with some replaced; None takes one away."""
        return _made(_without_none({**vars(self), **changes}))

    def over(self, below: TaskOptions) -> TaskOptions:
        """Return these options, and those of `below` that are not given here."""
        if below is NO_OPTIONS or self is NO_OPTIONS:
            return self if below is NO_OPTIONS else below
        joined = {**vars(below), **vars(self)}
        if "reset" in joined:
            for name in joined.pop("reset") - vars(self).keys():
                joined.pop(name, None)
        return _made(joined)

    def changed(self, **given: Any) -> TaskOptions:
        """Return the options of a call with those that `using` gives; None takes one away, also from `@task`.

        Raises:
            UnknownOption, EnqueueError: As for `of`.
        """
        chosen = vars(TaskOptions.of(**given))
        taken = {_ALIASES.get(name, name) for name, value in given.items() if value is None}
        kept = {name: value for name, value in vars(self).items() if name not in taken}
        reset = frozenset((self.reset or frozenset()) | taken) - chosen.keys()
        return _made(_without_none({**kept, **chosen, "reset": reset or None}))

    def of_part(self) -> TaskOptions:
        """Return these options for a link of a chain or a part of an iter: it is not unique, whatever `@task` says.

        Such a task is written when others end, which nothing may prevent.

        Raises:
            EnqueueError: The call itself gives one of these options.
        """
        for name in ("unique", "debounce", "expires"):
            if getattr(self, name):
                raise EnqueueError(name, "is not for links of a chain or parts of an iter")
        return self.but(reset=(self.reset or frozenset()) | {"unique", "debounce", "expires"})

    def of_columns(self) -> TaskOptions:
        """Return the options that are columns of their own."""
        return _made({name: value for name, value in vars(self).items() if name not in _KEYS and name != "other"})

    def stored(self) -> dict[str, Any]:
        """Return the content of the options column."""
        stored = {_KEYS[name]: value for name, value in vars(self).items() if name in _KEYS}
        return stored if self.other is None else {**self.other, **stored}

    def text(self) -> str:
        """Return the options column as canonical JSON. The values are JSON already: see `codec.canonical`."""
        return codec.canonical(self.stored())


@functools.lru_cache(maxsize=1000)
def _parsed(text: str) -> TaskOptions:
    return TaskOptions.of_stored(json.loads(text))


def _without_none(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _made(given: dict[str, Any]) -> TaskOptions:
    """Return the record of these options, none of which is None; for all others Python finds the class's default.

    This takes a tenth of the time of ``__init__``, which sets each field; each call that gives an option pays for it.
    """
    if not given:
        return NO_OPTIONS
    options = object.__new__(TaskOptions)
    vars(options).update(given)
    return options


# ------------------------------------------------------------------------------------------------- derived lists


_FIELDS: tuple[Field[Any], ...] = tuple(option for option in fields(TaskOptions) if option.metadata)
_KEYS = {option.name: option.metadata["key"] or option.name for option in _FIELDS if "stored" in option.metadata}
_NAMES = {key: name for name, key in _KEYS.items()}
#: Names of django.tasks for options that have another name here.
_ALIASES = {"backoff": "retry_backoff", "queue_name": "queue"}


def _known(by: By) -> dict[str, Check | None]:
    # Only a column may have two checks.
    which = "task_check" if by is By.TASK else "check"
    return {
        option.name: option.metadata.get(which, option.metadata["check"])
        for option in _FIELDS
        if by in option.metadata["by"]
    }


_KNOWN = {by: _known(by) for by in (By.TASK, By.CALL)}
#: The options that `@task` takes, and those that one call takes.
TASK_OPTIONS, CALL_OPTIONS = _KNOWN[By.TASK].keys(), _KNOWN[By.CALL].keys()
#: Options by which a schedule fixes columns of its tasks, with their keys in its options; "extra" holds all others.
OF_SCHEDULE: dict[str, str] = {
    option.name: key for option in _FIELDS if (key := option.metadata.get("of_schedule")) is not None
}
#: The options of a task that has none: one object, so that one comparison tells.
NO_OPTIONS: TaskOptions = object.__new__(TaskOptions)


def unknown_option(given: object, known: Iterable[str], *, of: str | None = None) -> UnknownOption:
    """Return the error for an unknown option; it names the nearest known one, and all known ones.

    Args:
        of: The argument that holds the option; None: the option is an argument itself.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    field, what = (str(given), "there is no such option") if of is None else (of, f"there is no option {given}")
    return UnknownOption(field, f"{what}{f'; did you mean {near[0]}?' if near else '.'} There are {', '.join(names)}.")
