"""The schedules in code, read and checked: those of PGQ["schedules"] and those of ``@task(schedule=...)``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, time
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.module_loading import import_string

from pgq.conf import get_settings
from pgq.config import Cron, Every, ScheduleConfig
from pgq.enqueue.make import make_task
from pgq.models import Schedule
from pgq.records.options import CALL_OPTIONS, TaskOptions, unknown_option
from pgq.recurrence import KIND_WORDS, KINDS, LONGEST, Recurrence, anchored, doubt, first_slot, kind_of, missed
from pgq.recurrence.moments import aware
from pgq.schedules import commands, declared, define

_KEYS = {each.name for each in fields(ScheduleConfig)}
#: The types that count days, and so may have a time of the day.
_OF_DAYS = {"D", "W", "BW", "M", "BM", "Q", "Y"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or odd about a schedule in code: where it stands and what to do."""

    message: str
    #: False: it works all the same.
    is_error: bool = True


@dataclass(slots=True)
class CodeSchedule:
    """A schedule as the code has it, checked."""

    name: str
    #: Where it stands: ``schedules[3] "Daily report"``.
    place: str
    #: False: there is to be none, and one that is there is paused.
    is_enabled: bool
    #: An unsaved row with all that the code says.
    row: Schedule
    #: What its row remembers of the code.
    spec: dict[str, Any]
    at: time | None
    #: What the code gives as the first slot, aware.
    given_first: datetime | None

    def first_run(self, now: datetime) -> datetime | None:
        """Return the first slot that is still to come, aware; None: there is none."""
        rule = Recurrence.of(self.row, get_settings().zone)
        given = self.given_first
        if given is None:
            return first_slot(rule, now, self.at)
        return given if given > now else missed(anchored(rule, given), given, now, 1)[1]


@dataclass(slots=True)
class Read:
    """All schedules in code, and what is wrong with them. With an error among the findings, the list is not whole."""

    schedules: list[CodeSchedule] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def errors(self) -> list[str]:
        """Return the messages of those findings that are errors."""
        return [finding.message for finding in self.findings if finding.is_error]


def read() -> Read:
    """Read all schedules in code. What they name is imported.

    Raises:
        ImproperlyConfigured: The settings are wrong.
    """
    found = Read()
    places: dict[str, str] = {}
    for place, entry, path, own_name in _entries(found):
        config, wrong = _config(entry, path, own_name)
        name = config.name
        place = place if not isinstance(name, str) or not name else f'{place} "{name}"'
        # Each check names what it finds, so that all is said at once.
        one = None if wrong else _checked(config, place, wrong)
        if isinstance(name, str) and name:
            first = places.setdefault(name, place)
            if first is not place:
                wrong.append(f"name: {first} has it as well; names tell schedules apart")
        found.findings += [Finding(f"{place}: {said}") for said in wrong]
        found.findings += [Finding(f"{place}: {said}", is_error=False) for said in config.notes]
        if one is not None and not wrong:
            found.schedules.append(one)
            odd = doubt(Recurrence.of(one.row, get_settings().zone))
            found.findings += [Finding(f"{place}: {odd}", is_error=False)] if odd else []
    return found


def check(config: ScheduleConfig, place: str) -> tuple[CodeSchedule | None, list[str]]:
    """Return one schedule, checked, or None and all that is wrong with it."""
    wrong: list[str] = []
    return _checked(config, place, wrong), wrong


# ------------------------------------------------------------------------------------------------- finding them


def _entries(found: Read) -> Iterator[tuple[str, Any, str | None, str | None]]:
    """Yield where each schedule stands, what stands there, the path of the function beside it, and its own name.

    The own name is for one that gives none: alone beside its function, it has the path of that.
    """
    listed = get_settings().schedules
    where = "schedules"
    if isinstance(listed, str):
        where = f"schedules ({listed})"
        listed = _imported(listed, where, found)
    for number, entry in enumerate(listed):
        yield f"{where}[{number}]", entry, None, None
    for path, entries in declared.all_declared():
        alone = len(entries) == 1
        for number, entry in enumerate(entries):
            yield f"@task {path}" + ("" if alone else f" schedule[{number}]"), entry, path, path if alone else None


def _imported(path: str, where: str, found: Read) -> Sequence[Any]:
    try:
        value = import_string(path)
        value = value() if callable(value) else value
        value = value.to_schedules() if hasattr(value, "to_schedules") else value
    except Exception as error:
        found.findings.append(Finding(f"{where}: {type(error).__name__}: {error}"))
        return ()
    if not isinstance(value, list | tuple):
        found.findings.append(Finding(f"{where}: must be a list of schedules, got a {type(value).__name__}"))
        return ()
    return value


def _config(entry: Any, path: str | None, own_name: str | None) -> tuple[ScheduleConfig, list[str]]:
    """Return an entry as a `ScheduleConfig`, and what is wrong with its form."""
    wrong: list[str] = []
    if isinstance(entry, str) and path is not None:
        entry = Cron(entry)
    if hasattr(entry, "to_schedule"):
        entry = entry.to_schedule()
    if isinstance(entry, Mapping):
        unknown = [key for key in entry if key not in _KEYS]
        for key in unknown:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            wrong.append(f"{key}: there is no such key" + (f"; did you mean {close[0]}?" if close else ""))
        entry = ScheduleConfig(**{key: value for key, value in entry.items() if key in _KEYS})
    if path is not None and isinstance(entry, Cron | Every):
        entry = ScheduleConfig(entry.name, when=entry)
    if not isinstance(entry, ScheduleConfig):
        return ScheduleConfig(), [f"must be a ScheduleConfig or a dict, got {entry!r}"]
    if path is not None:
        if entry.func is not None or entry.command is not None:
            wrong.append("func: it stands beside its function; leave func and command out")
        entry = replace(entry, func=path, command=None, name=entry.name or own_name)
    return entry, wrong


# ------------------------------------------------------------------------------------------------- checking one


def _checked(config: ScheduleConfig, place: str, wrong: list[str]) -> CodeSchedule | None:
    """Return the schedule, or None after adding to `wrong` all that is wrong with it."""
    if not isinstance(config.name, str) or not config.name.strip():
        wrong.append("name: give it a name; the database keeps it under that")
    wrong += _forms(config)
    at = given_first = None
    timing: dict[str, Any] = {}
    with _noting(wrong):
        timing = _timing(config)
        at = _time_of_day(timing.pop("at"), timing["schedule_type"])
    with _noting(wrong):
        given_first = _given_first(config)
    row = Schedule(
        name=config.name,
        repeats=1 if timing.get("schedule_type") == "O" else config.repeats,
        catch_up=config.catch_up,
        overlap=config.overlap,
        jitter=config.jitter,
        intended_date_kwarg=config.intended_date_kwarg or None,
        **timing,
    )
    if timing:
        with _noting(wrong):
            row.full_clean(exclude=["func", "args", "kwargs", "options"], validate_unique=False)
    with _noting(wrong):
        # The task is not used: making it is how all that is wrong is found, and not only the first of it.
        call = func, args, kwargs = _call(config)
        model = make_task(func, args, kwargs, first=None)
        define.check_calls_of(model.func, len(args), kwargs, config.intended_date_kwarg or None, None)
    with _noting(wrong):
        options = _options(config)
        make_task(commands.run, options=options.of_columns(), first=None)
    if not wrong:
        with _noting(wrong):
            define.complete(row, *call, options)
    if wrong:
        return None
    is_enabled = _is_enabled(config)
    spec = {
        **lasting(row),
        "repeats": row.repeats,
        "at": None if at is None else at.isoformat(),
        "next_run": None if given_first is None else given_first.astimezone(UTC).isoformat(),
        "enabled": is_enabled,
    }
    return CodeSchedule(str(config.name), place, is_enabled, row, spec, at, given_first)


def _forms(config: Any) -> list[str]:
    """Return which fields of a `ScheduleConfig` that nothing below looks at are of a wrong form."""
    wrong = []
    names = config.environments
    if not isinstance(names, list | tuple | set) or not all(isinstance(each, str) for each in names):
        wrong.append(f"environments: must be a list of texts, got {config.environments!r}")
    if not isinstance(config.enabled, bool):
        wrong.append(f"enabled: must be True or False, got {config.enabled!r}")
    if not isinstance(config.options, Mapping):
        wrong.append(f"options: must be a dict, got {config.options!r}")
    jitter = config.jitter
    if isinstance(jitter, bool) or not isinstance(jitter, int | float) or not 0 <= jitter <= LONGEST:
        wrong.append(f"jitter: must be a number of seconds, 0 or above, got {jitter!r}")
    if config.intended_date_kwarg is not None and not isinstance(config.intended_date_kwarg, str):
        wrong.append(f"intended_date_kwarg: must be the name of an argument, got {config.intended_date_kwarg!r}")
    return wrong


def lasting(row: Schedule) -> dict[str, Any]:
    """Return what a row says and firing does not change, as JSON has it."""
    values = {name: row.__dict__[name] for name in define.LASTING}
    texts = {name: str(values[name]) for name in ("args", "kwargs", "options")}
    numbers = {name: None if values[name] is None else float(values[name]) for name in ("seconds", "jitter")}
    return {**values, **texts, **numbers}


class _noting:
    """Adds what is wrong inside it to a list, each in a sentence that begins with the field."""

    def __init__(self, wrong: list[str]) -> None:
        self.wrong = wrong

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, ValidationError):
            for name, messages in error.message_dict.items():
                self.wrong += [said if said.startswith(f"{name}: ") else f"{name}: {said}" for said in messages]
        elif isinstance(error, ValueError | TypeError | LookupError | AttributeError):
            self.wrong.append(str(error))
        else:
            return False
        return True


def _wrong(name: str, said: str) -> ValueError:
    return ValueError(f"{name}: {said}")


def _timing(config: ScheduleConfig) -> dict[str, Any]:
    """Return the fields of the row that say when it fires, and "at"."""
    own = {name: getattr(config, name) for name in ("schedule_type", "minutes", "seconds", "cron", "at")}
    if config.when is not None:
        given = [name for name, value in own.items() if value is not None]
        if given:
            raise _wrong(given[0], "when is given as well; give one of them")
        if not isinstance(config.when, Cron | Every):
            raise _wrong("when", f"must be cron(...) or Every(...), got {config.when!r}")
        rule = config.when.rule()
        zone = rule.pop("time_zone") or config.time_zone
        own |= rule
    else:
        zone = config.time_zone
    kind = kind_of(own["schedule_type"])
    needs = {"minutes": "I", "seconds": "S", "cron": "C"}
    filled = [name for name in needs if own[name] is not None]
    if kind is None:
        kind = needs[filled[0]] if filled else "O" if config.next_run is not None else None
    if kind is None:
        raise _wrong("when", 'say when it fires, such as when=cron("0 2 * * *") or schedule_type="daily"')
    if kind not in KINDS:
        raise _wrong("schedule_type", f"{kind!r} is none of {', '.join(KIND_WORDS)}")
    for name in filled:
        if needs[name] != kind:
            raise _wrong(
                name, f"schedule_type {own['schedule_type'] or kind!r} has no use for it; leave one of them out"
            )
    if kind in needs.values() and not filled:
        [needed] = [name for name, letter in needs.items() if letter == kind]
        raise _wrong(needed, f"schedule_type {own['schedule_type']!r} needs it")
    return {**own, "schedule_type": kind, "cron": own["cron"] or None, "time_zone": zone or None}


def _time_of_day(given: Any, kind: str) -> time | None:
    if given is None:
        return None
    if kind not in _OF_DAYS:
        raise _wrong("at", "is for days and longer only")
    try:
        at = given if isinstance(given, time) else time.fromisoformat(given)
    except (ValueError, TypeError):
        raise _wrong("at", f"must be a time of the day such as '02:30', got {given!r}") from None
    return at.replace(tzinfo=None)


def _given_first(config: ScheduleConfig) -> datetime | None:
    given = config.next_run
    if given is None:
        return None
    if not isinstance(given, datetime):
        raise _wrong("next_run", f"must be a datetime, got {given!r}")
    return aware(given)


def _call(config: ScheduleConfig) -> tuple[str | Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]:
    if not isinstance(config.args, list | tuple):
        raise _wrong("args", f"must be a list, got {config.args!r}")
    if not isinstance(config.kwargs, Mapping):
        raise _wrong("kwargs", f"must be a dict, got {config.kwargs!r}")
    if config.command is not None:
        return commands.call_of(config.command, config.func, config.args, config.kwargs)
    if config.func is None:
        raise _wrong("func", "give a function, or a command")
    return config.func, tuple(config.args), config.kwargs


def _options(config: ScheduleConfig) -> TaskOptions:
    names = ("queue", "priority", "hook", "timeout", "max_attempts")
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    known = {*CALL_OPTIONS, "task_name"} - {"name", "run_after"}
    options = config.options if isinstance(config.options, Mapping) else {}
    for name in options:
        if name not in known:
            raise unknown_option(name, known, of="options")
    more = {"name" if name == "task_name" else name: value for name, value in options.items()}
    return TaskOptions.of(**{**given, **more})


def _is_enabled(config: ScheduleConfig) -> bool:
    environment = get_settings().environment or os.environ.get("DJANGO_ENV")
    return config.enabled and (not config.environments or environment in config.environments)
