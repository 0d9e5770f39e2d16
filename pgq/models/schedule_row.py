"""How a row of pgq_schedule is written, by `save` and by each other way: its first slot, what a new rule means for the
next one, and its signature.

A signature is over what a schedule enqueues, so a change would void it. It is renewed where that gains nothing for one
who can only write to the table: the signature was good when the row was loaded, this process gave the new values, and
the functions are such as an unsigned row may name. Any other change of a signed row is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import models, transaction

from pgq import recurrence
from pgq.codec import signing
from pgq.codec.stored import StoredText
from pgq.conf import get_settings
from pgq.enqueue import registry
from pgq.errors import EnqueueError
from pgq.fields import KeepsText
from pgq.models.placed import PlacedQuerySet
from pgq.recurrence import moments

if TYPE_CHECKING:
    _DateTimeField = models.DateTimeField[Any, Any]
    _TextField = models.TextField[Any, Any]
    _QuerySet = models.QuerySet[Any]
    _Manager = models.Manager[Any]
else:
    _DateTimeField, _TextField = models.DateTimeField, models.TextField
    _QuerySet, _Manager = models.QuerySet, models.Manager


#: What the signature is over, and those of them that are texts in the form of `pgq.codec`.
SIGNED = ("func", "hook", "args", "kwargs", "options", "queue")
_TEXTS = frozenset({"args", "kwargs", "options"})
#: What fixes when it fires.
RULE = frozenset({"schedule_type", "minutes", "seconds", "cron", "time_zone"})
_WATCHED = (*SIGNED, *RULE, "next_run", "signature")


def first_run(row: Any) -> datetime | None:
    """Return the slot that a schedule begins with, as the project's models hold it: now, or the next one of its cron.

    Raises:
        ValueError: The rule cannot be read; the message begins with the field.
    """
    now = moments.now()
    if row.schedule_type != "C":
        return moments.as_project(now)
    slot = recurrence.next_slot(recurrence.Recurrence.of(row, get_settings().zone), now)
    return None if slot is None else moments.as_project(slot)


class TypeField(_TextField):
    """The type of a schedule: the letter, which the table holds, also where a word for it is given, such as "daily".

    To migrations it is a text, as the column is.
    """

    def to_python(self, value: Any) -> Any:
        return recurrence.kind_of(super().to_python(value))

    def get_prep_value(self, value: Any) -> Any:
        return recurrence.kind_of(super().get_prep_value(value))

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        value = recurrence.kind_of(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, value)
        return value

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


class NextRunField(_DateTimeField):
    """The next slot of a schedule. A new row that is given none begins with `first_run`, however it is written."""

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        value = super().pre_save(model_instance, add)
        if add and (value is None or isinstance(value, models.expressions.DatabaseDefault)):
            value = first_run(model_instance)
            setattr(model_instance, self.attname, value)
        return value


class ScheduleRow(KeepsText):
    """Part of `pgq.models.Schedule` and of its models in data migrations: what follows from an edit."""

    func: Any
    hook: Any
    name: Any
    schedule_type: Any
    next_run: Any
    day: Any
    wall_time: Any
    error: Any
    retry_at: Any
    signature: Any
    paused: Any
    auto_paused: Any

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Any:
        row = super().from_db(*args, **kwargs)
        row.remember(_WATCHED)
        return row

    def refresh_from_db(self, using: Any = None, fields: Any = None, from_queryset: Any = None) -> None:
        super().refresh_from_db(using=using, fields=fields, from_queryset=from_queryset)
        self.remember(_WATCHED if fields is None else fields)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, with what follows from the changes. A full save clears the error, so that it is tried at once.

        Raises:
            EnqueueError: Python signed the schedule, and the change would take its signature away.
            ValueError: A field cannot hold its value, or the rule cannot be read; the message begins with the field.
        """
        self.read_given()
        if "schedule_type" in self.__dict__:
            # What follows from the type is told by its letter.
            self.schedule_type = recurrence.kind_of(self.schedule_type)
        names = kwargs.get("update_fields")
        if self._state.adding:
            self._meta.get_field("next_run").pre_save(self, add=True)  # type: ignore[union-attr]
        if names is None:
            self.error = self.retry_at = None
        if self.auto_paused and not self.paused and (names is None or "paused" in names):
            # What resumed it decides from now on, and no deploy.
            self.auto_paused = False
            if names is not None:
                kwargs["update_fields"] = names = {*names, "auto_paused"}
        if not self._state.adding and (names is None or names):
            follow = self._follow(_WATCHED if names is None else names)
            if names is not None:
                kwargs["update_fields"] = {*names, *follow}
        super().save(*args, **kwargs)
        self.remember(_WATCHED)

    def remember(self, names: Iterable[str]) -> None:
        """Note values as those of the table; what differs from them later was changed here."""
        loaded = self.__dict__.setdefault("_loaded", {})
        loaded.update({name: self.__dict__[name] for name in names if name in _WATCHED and name in self.__dict__})

    def follow_signature(self) -> None:
        """Sign anew what Python signed and has changed, as `save` does.

        Raises:
            EnqueueError: That is not allowed.
        """
        self._follow_signature(self._changed(SIGNED), self._vouches)

    def _text(self, name: str, value: Any) -> str:
        return self._meta.get_field(name).encoded(value)  # type: ignore[union-attr,no-any-return]  # a StoredField

    def _loaded_value(self, name: str) -> Any:
        loaded = self.__dict__.setdefault("_loaded", {})
        if name not in loaded:
            # It was set without having been read.
            row = type(self)._base_manager.using(self._state.db).filter(pk=self.pk).first()
            loaded |= {key: row.__dict__[key] for key in _WATCHED if key not in loaded} if row is not None else {}
        return loaded.get(name)

    def _changed(self, names: Iterable[str]) -> list[str]:
        """Return those of the fields that have another value than in the table."""
        changed = []
        for name in names:
            if name not in self.__dict__ or name not in _WATCHED:
                continue
            new, old = self.__dict__[name], self._loaded_value(name)
            if name in _TEXTS and not hasattr(new, "resolve_expression"):
                new, old = self._text(name, new), None if old is None else self._text(name, old)
            elif name in ("hook", "queue"):
                new, old = new or None, old or None
            if new is not old and new != old:
                changed.append(name)
        return changed

    def _vouches(self, name: str) -> bool:
        """Whether this process made the value: it is no stored text, which may have come from anywhere."""
        return _is_made_here(self.__dict__[name])

    def _follow(self, names: Iterable[str], *, moved: bool | None = None) -> set[str]:
        """Do what follows from the changes of these fields; return the further fields to be written."""
        changed = self._changed(names)
        rule = bool(RULE.intersection(changed))
        moved = "next_run" in changed if moved is None else moved
        follow = self._follow_signature([name for name in SIGNED if name in changed], self._vouches)
        if rule and not moved and self.schedule_type == "C":
            # Cron fixes when; of the other types the next run does, so that it stays where it is.
            self.next_run = first_run(self)
            follow.add("next_run")
        if rule or moved:
            # They hold a day and an hour that the old rule had.
            self.day = self.wall_time = None
            follow |= {"day", "wall_time"}
        if changed:
            self.error = self.retry_at = None
            follow |= {"error", "retry_at"}
        return follow

    def _follow_signature(self, changed: list[str], vouches: Callable[[str], bool]) -> set[str]:
        """Sign anew what was signed and has changed; return the further fields to be written.

        Raises:
            EnqueueError: That is not allowed.
        """
        if not changed or self.signature is None or self._changed(["signature"]):
            return set()
        before = {name: self._loaded_value(name) for name in SIGNED}
        texts = {name: str(before[name]) for name in _TEXTS}
        if not signing.verify_schedule(bytes(self.signature), **{**before, **texts}):
            return set()
        self._refuse_unless_allowed(changed, vouches)
        after = {**before, **texts, **{name: self.__dict__[name] or None for name in changed if name not in _TEXTS}}
        for name in _TEXTS.intersection(changed):
            value = self.__dict__[name]
            after[name] = self._text(name, value)
            if not isinstance(value, StoredText):
                # So that the row verifies at once, and still shows the very value.
                setattr(self, name, StoredText(after[name]))
                self.__dict__.setdefault("_decoded", {})[name] = value
        self.signature = signing.sign_schedule(**after)
        return {"signature"}

    def _refuse_unless_allowed(self, changed: list[str], vouches: Callable[[str], bool]) -> None:
        foreign = [name for name in changed if not vouches(name)]
        paths = [path for path in (self.func, self.hook) if path and not registry.may_be_named(path)]
        # The queue is where it runs, not what runs.
        if not foreign and (not paths or changed == ["queue"]):
            return
        why = (
            f"{foreign[0]} was not given as a value"
            if foreign
            else f"{paths[0]} is not registered with @task or listed in PGQ['allowed']"
        )
        name = f" {self.name!r}" if self.name else ""
        raise EnqueueError(
            changed[0],
            f"the schedule{name} was signed by schedule(), and a change here would take its signature "
            f"away, since {why}; use schedule(..., update=True), or set its signature to None",
        )


def _is_made_here(value: Any) -> bool:
    if isinstance(value, StoredText) or hasattr(value, "resolve_expression"):
        return False
    return not (isinstance(value, str) and value.startswith("stored:"))


class ScheduleQuerySet(PlacedQuerySet):
    """Has `update` and `bulk_update` do for each row what `save` does."""

    def update(self, **kwargs: Any) -> int:
        """Update, with what follows for each row; see `ScheduleRow.save`."""
        if "paused" in kwargs:
            kwargs.setdefault("auto_paused", False)
        if not kwargs.keys() & set(_WATCHED) or "signature" in kwargs:
            return super().update(**kwargs)
        self._for_write = True
        plain = _QuerySet(self.model, using=self.db)
        with transaction.atomic(using=self.db):
            found = list(self.order_by().values_list("pk", flat=True))
            before = {row.pk: row for row in plain.filter(pk__in=found).select_for_update()}
            count = super().update(**kwargs)
            for row in plain.filter(pk__in=list(before)):
                _follow_update(row, before[row.pk], kwargs, plain)
        return count

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> int:
        """Save these fields of each row: there are few schedules."""
        objs, fields = list(objs), list(fields)
        if not set(fields) & set(_WATCHED):
            return super().bulk_update(objs, fields, batch_size)
        self._for_write = True
        with transaction.atomic(using=self.db):
            for row in objs:
                row.save(using=self.db, update_fields=fields)
        return len(objs)

    bulk_update.alters_data = True  # type: ignore[attr-defined]


def _follow_update(row: Any, before: Any, given: Mapping[str, Any], plain: models.QuerySet[Any]) -> None:
    """Write what follows from an UPDATE of one row, which is read again; `before` is the row as it was."""
    row.__dict__["_loaded"] = {name: before.__dict__[name] for name in _WATCHED}
    row._vouches = lambda name: _is_made_here(given.get(name))
    follow = row._follow(_WATCHED, moved="next_run" in given) - given.keys()
    if follow:
        plain.filter(pk=row.pk).update(**{name: row.__dict__[name] for name in follow})


class ScheduleManager(_Manager.from_queryset(ScheduleQuerySet)):  # type: ignore[misc]  # made at run time
    """The manager of schedules, in data migrations too."""

    use_in_migrations = True
