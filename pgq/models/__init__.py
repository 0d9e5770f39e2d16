"""Django's view of the tables, with the names of Django-Q's models.

The tables are made by migrations_sql; a test holds these classes against them. Behaviour is elsewhere: here are only
names, readers and what Django-Q's models offered on top.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pgq import recurrence
from pgq.codec import signing
from pgq.codec.reading import read_args, read_value
from pgq.codec.stored import stored_text
from pgq.conf import asked, at, get_settings, places
from pgq.errors import field_of
from pgq.fields import (
    ArgsField,
    ExceptionField,
    KeepsText,
    KwargsField,
    NameField,
    OptionalTextField,
    OutcomeField,
    StoredField,
    TaskIdField,
)
from pgq.ground import ids
from pgq.models import metrics as metrics
from pgq.models import schedule_row
from pgq.models.dashboard import Dashboard as Dashboard
from pgq.models.metrics import ArrayColumn
from pgq.models.placed import PlacedManager
from pgq.models.schedule_row import NextRunField, ScheduleManager, ScheduleRow, TypeField
from pgq.recurrence import moments


def read_stored(row: models.Model, attribute: str, text: str, *, trusted: bool) -> Any:
    """Decode a stored value of a row; untrusted, as a description that imports, loads and unpickles nothing."""
    args, kwargs = stored_text(row, "args"), stored_text(row, "kwargs")
    if attribute in ("args", "kwargs") and args is not None and kwargs is not None:
        value = read_args(args, kwargs, trusted=trusted)[0 if attribute == "args" else 1]
    else:
        value = read_value(text, trusted=trusted)
    return tuple(value) if attribute == "args" and isinstance(value, list) else value


class _Named(KeepsText, models.Model):
    """Shared by queued and finished tasks: the name made from the id, and careful reading of stored values."""

    class Meta:
        abstract = True

    id: Any
    name: Any

    @property
    def display_name(self) -> str:
        """The given name, or the four words of the id."""
        return str(self.name or self.id)

    @property
    def progress(self) -> Progress | None:
        """What the task says of itself, read anew each time; None: it has said nothing."""
        return Progress.of(self.id)

    def decode_stored(self, attribute: str, text: str) -> Any:
        """Decode a stored value; what would import or load anything stays a description unless the row is signed."""
        return read_stored(self, attribute, text, trusted=self._is_signed())

    def _is_signed(self) -> bool:
        raise NotImplementedError


class Progress(models.Model):
    """What a task says of itself while it runs and afterwards: how far it is, and its last log lines."""

    task = TaskIdField(primary_key=True, editable=False)
    done = models.FloatField(null=True, editable=False)
    total = models.FloatField(null=True, editable=False)
    text = models.TextField(null=True, editable=False)
    log = models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)
    updated_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False)

    class Meta:
        db_table = "pgq_progress"
        verbose_name = _("Progress")
        verbose_name_plural = _("Progress")

    def __str__(self) -> str:
        return str(self.task)

    @staticmethod
    def of(task: str | UUID) -> Progress | None:
        """Return what the task of that id says of itself, as of now; None: nothing yet.

        Raises:
            ValueError: It is no id.
        """
        id = ids.parse_id(task)
        if id is None:
            raise ValueError(f"progress is found by a task's id, 32 hex digits, not by {task!r}")
        return places.first(lambda: Progress.objects.using(get_settings().database).filter(pk=id).first())

    @property
    def fraction(self) -> float | None:
        """How much of the total is done, from 0 to 1; None: not known."""
        if self.done is None or not self.total or not (self.done >= 0 and 0 < self.total < math.inf):
            return None
        return min(1.0, float(self.done / self.total))


class QueuedTask(_Named):
    """A live task: ready, waiting for a time, running or parked. Creating one enqueues it (see `pgq.enqueue`)."""

    id = TaskIdField(primary_key=True, db_default=models.Func(function="pgq_uuid7"), editable=False)
    position = models.BigIntegerField(
        db_default=models.Func(models.Value("pgq_position"), function="nextval", output_field=models.BigIntegerField()),
        editable=False,
    )
    priority = models.SmallIntegerField(db_default=0, help_text=_("-100 to 100; larger is sooner"))
    attempts = models.SmallIntegerField(db_default=0, editable=False)
    crashes = models.SmallIntegerField(db_default=0, editable=False)
    cancelled = models.BooleanField(db_default=False, editable=False)
    max_attempts = models.IntegerField(db_default=1, help_text=_("attempts that may fail; 0: no limit"))
    queue = models.TextField(db_default="default")
    func = models.TextField(help_text=_("dotted path of a registered function"))
    args = ArgsField(db_default=models.Value([], StoredField()))
    kwargs = KwargsField(db_default=models.Value({}, StoredField()))
    options = KwargsField(db_default=models.Value({}, StoredField()))
    name = NameField(null=True, blank=True)
    group = OptionalTextField(null=True, blank=True)
    hook = OptionalTextField(null=True, blank=True)
    timeout = models.FloatField(null=True, blank=True, help_text=_("seconds"))
    run_after = models.DateTimeField(null=True, blank=True)
    remaining = models.IntegerField(null=True, blank=True, editable=False)
    parked = models.TextField(null=True, blank=True, editable=False)
    schedule = models.BigIntegerField(null=True, blank=True, editable=False)
    slot = models.DateTimeField(null=True, blank=True, editable=False)
    signature = models.BinaryField(null=True, editable=False)
    history = models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)
    enqueued_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False)
    ready_at = models.DateTimeField(null=True, editable=False)
    lock = models.DateTimeField(null=True, blank=True, editable=False)
    worker = TaskIdField(null=True, blank=True, editable=False)
    receipt = TaskIdField(null=True, blank=True, editable=False)
    #: Not `key`, which is the queue in Django-Q.
    task_key = OptionalTextField(
        null=True, blank=True, db_column="key", help_text=_("groups tasks for turns and limits")
    )
    strand = models.BigIntegerField(null=True, blank=True, editable=False)
    unique_key = OptionalTextField(null=True, blank=True, editable=False)
    unique_until = OptionalTextField(null=True, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[models.Manager[QueuedTask]] = PlacedManager()

    class Meta:
        db_table = "pgq_queue"
        verbose_name = _("Queued task")
        verbose_name_plural = _("Queued tasks")
        permissions: ClassVar = [
            ("cancel_queuedtask", "Can cancel queued task"),
            ("run_queuedtask", "Can run queued task now"),
            ("release_queuedtask", "Can release parked task"),
        ]

    def __str__(self) -> str:
        return self.display_name

    @property
    def state(self) -> str:
        """ready, waiting, running or parked."""
        if self.lock is not None:
            return "running"
        if self.parked is not None:
            return "parked"
        return "waiting" if self.run_after is not None or self.remaining is not None else "ready"

    @property
    def key(self) -> str:
        """Django-Q's name for the queue."""
        return self.queue

    @property
    def task_id(self) -> str:
        """Django-Q's name for the id."""
        return str(self.id)

    @property
    def task(self) -> dict[str, Any]:
        """What Django-Q packs into a row, as a dict; what is added to it is not kept."""
        return {
            **self.options,
            "id": self.task_id,
            "name": self.name,
            "func": self.func,
            "args": self.args,
            "kwargs": self.kwargs,
            "group": self.group,
            "hook": self.hook,
            "cluster": self.queue,
            "timeout": self.timeout,
            "started": self.enqueued_at,
        }

    def _is_signed(self) -> bool:
        return signing.verify_row(self)


OrmQ = QueuedTask


class Lane(models.Model):
    """A queue and priority in use, with its watermark. Upkeep's business."""

    pk = models.CompositePrimaryKey("queue", "priority")
    queue = models.TextField()
    priority = models.SmallIntegerField(db_default=0)
    low = models.BigIntegerField(db_default=0)
    paused = models.BooleanField(db_default=False)

    class Meta:
        db_table = "pgq_lane"

    def __str__(self) -> str:
        return f"{self.queue} ({self.priority})"


class KeyedLane(models.Model):
    """A lane of a key: what claims know of a (queue, key, priority)."""

    pk = models.CompositePrimaryKey("queue", "key", "priority")
    queue = models.TextField()
    key = models.TextField()
    priority = models.SmallIntegerField(db_default=0)
    low = models.BigIntegerField(db_default=0)
    idle_since = models.DateTimeField(null=True)

    class Meta:
        db_table = "pgq_keyed"

    def __str__(self) -> str:
        return f"{self.queue}/{self.key}/{self.priority}"


class UniqueKey(models.Model):
    """A unique key that is taken for a time: which task took it, and until when."""

    key = models.TextField(primary_key=True)
    task = TaskIdField()
    until = models.DateTimeField()

    class Meta:
        db_table = "pgq_unique"

    def __str__(self) -> str:
        return self.key


class Limit(models.Model):
    """A limit of a queue, or of all keys whose part before the first colon is its name; see `pgq.tasks.set_limit`."""

    pk = models.CompositePrimaryKey("scope", "name")
    scope = models.TextField(choices=(("key", _("key")), ("queue", _("queue"))))
    name = models.TextField()
    concurrency = models.IntegerField(null=True, blank=True)
    rate = models.IntegerField(null=True, blank=True)
    period = models.FloatField(null=True, blank=True)
    smooth = models.BooleanField(db_default=False)
    strict = models.BooleanField(db_default=False)
    pinned = models.BooleanField(db_default=False)
    updated_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False)

    class Meta:
        db_table = "pgq_limit"
        verbose_name = _("Limit")
        verbose_name_plural = _("Limits")

    def __str__(self) -> str:
        return f"{self.scope} {self.name}"


class Rate(models.Model):
    """What the rate of a limit has counted, of one key or of a queue."""

    pk = models.CompositePrimaryKey("scope", "name")
    scope = models.TextField()
    name = models.TextField()
    starts = models.JSONField(db_default=models.Value([], models.JSONField()))
    not_before = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False)

    class Meta:
        db_table = "pgq_rate"

    def __str__(self) -> str:
        return f"{self.scope} {self.name}"


class Task(_Named):
    """A finished task. One that a project makes in its tests needs no more than `func`, as in Django-Q."""

    #: The outcome of a row that is given none.
    succeeds: ClassVar[bool] = True

    id = TaskIdField(primary_key=True, editable=False)
    success = OutcomeField(editable=False)
    attempt_count = models.SmallIntegerField(db_default=0, editable=False)
    priority = models.SmallIntegerField(db_default=0, editable=False)
    max_attempts = models.IntegerField(db_default=1, editable=False)
    timeout = models.FloatField(null=True, editable=False)
    started = models.DateTimeField(default=timezone.now, editable=False)
    stopped = models.DateTimeField(default=timezone.now, editable=False)
    enqueued_at = models.DateTimeField(default=timezone.now, editable=False)
    func = models.TextField()
    queue = models.TextField(default="default", editable=False)
    args = ArgsField(db_default=models.Value([], StoredField()), editable=False)
    kwargs = KwargsField(db_default=models.Value({}, StoredField()), editable=False)
    options = KwargsField(db_default=models.Value({}, StoredField()), editable=False)
    value = StoredField(null=True, editable=False, db_column="result")
    name = NameField(null=True, editable=False)
    group = OptionalTextField(null=True, editable=False)
    hook = OptionalTextField(null=True)
    cluster = OptionalTextField(null=True, editable=False)
    worker = TaskIdField(null=True, editable=False)
    schedule = models.BigIntegerField(null=True, editable=False)
    exception = ExceptionField(null=True, editable=False)
    message = models.TextField(null=True, editable=False)
    traceback = models.TextField(null=True, editable=False)
    signature = models.BinaryField(null=True, editable=False)
    history = models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)
    task_key = OptionalTextField(null=True, editable=False, db_column="key")

    class Meta:
        db_table = "pgq_task"
        # Newest first, as in Django-Q; by id, whose index serves it.
        ordering: ClassVar = ["-id"]
        verbose_name = _("Task")
        verbose_name_plural = _("Tasks")
        permissions: ClassVar = [("retry_task", "Can run finished task again")]

    def __str__(self) -> str:
        return self.display_name

    @property
    def result(self) -> Any:
        """The value the function returned; of a failure, as in Django-Q, the text of the error and its traceback."""
        return self.value if self.success else f"{self.message} : {self.traceback}"

    @result.setter
    def result(self, value: Any) -> None:
        if self.success is not False and not isinstance(self, Failure):
            self.value = value
        else:
            self.message, _, self.traceback = str(value).partition(" : ")

    @staticmethod
    def _finished() -> models.QuerySet[Task]:
        return Task.objects.using(get_settings().database)

    @staticmethod
    def get_task(task_id: str | UUID) -> Task | None:
        """Return the finished task of that id or name; of several of a name the newest.

        Raises:
            TypeError: Neither a text nor a UUID.
        """
        if not isinstance(task_id, str | UUID):
            raise TypeError(f"a task is found by its id or name, not by {task_id!r}")
        return places.first(lambda: Task._get_here(task_id))

    @staticmethod
    def _get_here(task_id: str | UUID) -> Task | None:
        """Return that of the database at hand."""
        id = ids.parse_id(task_id)
        if id is not None:
            found = Task._finished().filter(pk=id).first()
            if found is not None:
                return found
        named = Task._finished().filter(name=str(task_id)).order_by("-id").first()
        return named or Task._get_by_words(str(task_id))

    @staticmethod
    def _get_by_words(words: str) -> Task | None:
        """Return the task whose id these four words were made from."""
        oldest = Task._finished().order_by("id").values_list("id", flat=True).first()
        if oldest is None:
            return None
        now_ms = time.time_ns() // 1_000_000
        for low, high in ids.name_ranges(words, UUID(str(oldest)).int >> 80, now_ms):
            for id in Task._finished().filter(id__gte=low, id__lte=high).order_by("-id").values_list("id", flat=True):
                if ids.task_name(UUID(str(id))) == words:
                    return Task._finished().filter(pk=id).first()
        return None

    @staticmethod
    def get_result(task_id: str | UUID) -> Any:
        """Return the result of the finished task of that id or name, or None."""
        found = Task.get_task(task_id)
        return None if found is None else found.result

    @staticmethod
    def get_task_group(group_id: str, failures: bool = True) -> models.QuerySet[Task] | list[Task]:
        """Return the finished tasks of a group, newest first; without `failures` only those that succeeded.

        It is a queryset, as in Django-Q; a list if PGQ["databases"] names more than one database.
        """

        def here() -> models.QuerySet[Task]:
            tasks = Task._finished().filter(group=group_id)
            return tasks if failures else tasks.filter(success=True)

        if len(asked()) == 1:
            return here()
        found = [task for tasks in places.each(lambda: list(here())) for task in tasks]
        return sorted(found, key=lambda task: UUID(str(task.pk)).int, reverse=True)

    @staticmethod
    def get_result_group(group_id: str, failures: bool = False) -> list[Any]:
        """Return the results of a group, newest first; with `failures` also the texts of the failures."""
        return [task.result for task in Task.get_task_group(group_id, failures)]

    @staticmethod
    def get_group_count(group_id: str, failures: bool = False) -> int:
        """Return how many tasks of a group have finished; `failures`: how many of them have failed."""

        def here() -> int:
            tasks = Task._finished().filter(group=group_id)
            return tasks.filter(success=False).count() if failures else tasks.count()

        return sum(places.each(here))

    @staticmethod
    def delete_group(group_id: str, objects: bool = False) -> int | tuple[int, dict[str, int]]:
        """Take the label off a group's tasks and return how many; with `objects` delete them instead."""

        def here() -> int | tuple[int, dict[str, int]]:
            tasks = Task._finished().filter(group=group_id)
            return tasks.delete() if objects else tasks.update(group=None)

        done = places.each(here)
        return done[0] if len(done) == 1 else _sum(done)

    def group_result(self, failures: bool = False) -> list[Any] | None:
        """Return the results of this task's group, or None if it has none."""
        return self.get_result_group(self.group, failures) if self.group else None

    def group_count(self, failures: bool = False) -> int | None:
        """Return how many of this task's group have finished, or None if it has none."""
        return self.get_group_count(self.group, failures) if self.group else None

    def group_delete(self, tasks: bool = False) -> int | tuple[int, dict[str, int]] | None:
        """Dissolve, or with `tasks` delete, this task's group; None if it has none."""
        return self.delete_group(self.group, tasks) if self.group else None

    def time_taken(self) -> float:
        """Return the seconds the last attempt ran. (Django-Q counts from the enqueue.)"""
        return (self.stopped - self.started).total_seconds()

    def decode_stored(self, attribute: str, text: str) -> Any:
        if attribute == "value":
            inner, trusted = signing.unseal(UUID(self.id), text)
            return read_stored(self, attribute, inner, trusted=trusted)
        return super().decode_stored(attribute, text)

    def _is_signed(self) -> bool:
        return signing.verify_row(self)


def _sum(done: Sequence[int | tuple[int, dict[str, int]]]) -> int | tuple[int, dict[str, int]]:
    """Return the sum of what several databases have done, each as `QuerySet.update` or `QuerySet.delete` says it."""
    total, by_model = 0, Counter[str]()
    for each in done:
        if isinstance(each, int):
            total += each
        else:
            total += each[0]
            by_model.update(each[1])
    return total if isinstance(done[0], int) else (total, dict(by_model))


class SuccessManager(models.Manager["Success"]):
    def get_queryset(self) -> models.QuerySet[Success]:
        return super().get_queryset().filter(success=True)


class Success(Task):
    """The tasks that succeeded."""

    objects: ClassVar[SuccessManager] = SuccessManager()

    class Meta:
        proxy = True
        ordering: ClassVar = ["-id"]
        verbose_name = _("Successful task")
        verbose_name_plural = _("Successful tasks")


class FailureManager(models.Manager["Failure"]):
    def get_queryset(self) -> models.QuerySet[Failure]:
        return super().get_queryset().filter(success=False)


class Failure(Task):
    """The tasks that failed."""

    succeeds: ClassVar[bool] = False
    objects: ClassVar[FailureManager] = FailureManager()

    class Meta:
        proxy = True
        ordering: ClassVar = ["-id"]
        verbose_name = _("Failed task")
        verbose_name_plural = _("Failed tasks")


class Schedule(ScheduleRow, models.Model):
    """When to enqueue what."""

    ONCE, SECONDS, MINUTES, HOURLY, DAILY, WEEKLY, BIWEEKLY = "O", "S", "I", "H", "D", "W", "BW"
    MONTHLY, BIMONTHLY, QUARTERLY, YEARLY, CRON = "M", "BM", "Q", "Y", "C"
    TYPE = (
        (ONCE, _("Once")),
        (SECONDS, _("Seconds")),
        (MINUTES, _("Minutes")),
        (HOURLY, _("Hourly")),
        (DAILY, _("Daily")),
        (WEEKLY, _("Weekly")),
        (BIWEEKLY, _("Biweekly")),
        (MONTHLY, _("Monthly")),
        (BIMONTHLY, _("Bimonthly")),
        (QUARTERLY, _("Quarterly")),
        (YEARLY, _("Yearly")),
        (CRON, _("Cron")),
    )
    OVERLAP = (("allow", _("allow")), ("skip", _("skip")), ("queue_one", _("queue one")))

    id = models.BigAutoField(primary_key=True)
    name = OptionalTextField(null=True, blank=True, unique=True)
    func = models.TextField()
    hook = OptionalTextField(null=True, blank=True)
    args = ArgsField(db_default=models.Value([], StoredField()), blank=True)
    kwargs = KwargsField(db_default=models.Value({}, StoredField()), blank=True)
    options = KwargsField(db_default=models.Value({}, StoredField()), blank=True)
    queue = OptionalTextField(null=True, blank=True)
    priority = models.SmallIntegerField(db_default=0)
    schedule_type = TypeField(choices=TYPE, default=ONCE, db_default=ONCE)
    minutes = models.IntegerField(null=True, blank=True)
    seconds = models.FloatField(null=True, blank=True)
    cron = OptionalTextField(null=True, blank=True)
    repeats = models.IntegerField(default=-1, db_default=-1)
    next_run = NextRunField(null=True, blank=True, db_default=Now())
    time_zone = OptionalTextField(null=True, blank=True)
    catch_up = models.BooleanField(null=True, blank=True)
    overlap = models.TextField(choices=OVERLAP, default="allow", db_default="allow")
    jitter = models.FloatField(default=0, db_default=0)
    paused = models.BooleanField(default=False, db_default=False)
    intended_date_kwarg = OptionalTextField(null=True, blank=True)
    day = models.SmallIntegerField(null=True, blank=True, editable=False)
    wall_time = models.TimeField(null=True, blank=True, editable=False)
    task = TaskIdField(null=True, editable=False)
    last_slot = models.DateTimeField(null=True, editable=False)
    error = models.TextField(null=True, editable=False)
    retry_at = models.DateTimeField(null=True, editable=False)
    signature = models.BinaryField(null=True, editable=False)
    source = models.TextField(null=True, editable=False)
    spec = models.JSONField(null=True, editable=False)
    release = models.TextField(null=True, editable=False)
    auto_paused = models.BooleanField(default=False, db_default=False, editable=False)
    stale_since = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[models.Manager[Schedule]] = ScheduleManager()

    class Meta:
        db_table = "pgq_schedule"
        ordering: ClassVar = ["next_run"]
        verbose_name = _("Schedule")
        verbose_name_plural = _("Schedules")
        permissions: ClassVar = [
            ("run_schedule", "Can run schedule now"),
            ("pause_schedule", "Can pause and resume schedule"),
        ]

    def __str__(self) -> str:
        return self.name or self.func

    @property
    def cluster(self) -> str | None:
        """Django-Q's name for the queue."""
        queue: str | None = self.queue
        return queue

    @cluster.setter
    def cluster(self, value: str | None) -> None:
        self.queue = value

    def _recurrence(self) -> recurrence.Recurrence:
        return recurrence.Recurrence.of(self, get_settings().zone)

    def clean(self) -> None:
        """Refuse what could not fire.

        Raises:
            ValidationError: The message names the field and says what to do.
        """
        try:
            recurrence.validate(self._recurrence())
            self.read_given()
            if not self._state.adding:
                self.follow_signature()
        except ValueError as error:
            field = field_of(error)
            known = {item.name for item in self._meta.get_fields()}
            raise ValidationError({field: str(error)} if field in known else str(error)) from None

    def first_run(self) -> datetime | None:
        """Return the slot to begin with: now, or the next one that `cron` names."""
        return schedule_row.first_run(self)

    def calculate_next_run(self, next_run: datetime | None = None) -> datetime | None:
        """Return the first slot after `next_run` (None: after the present one); None if there is none."""
        slot = self._slot(next_run)
        following = recurrence.next_slot(recurrence.anchored(self._recurrence(), slot), slot)
        return None if following is None else moments.as_project(following)

    def _slot(self, given: datetime | None = None) -> datetime:
        """Return a slot, aware: the given one, or else the next run, which a new row has from its first save on."""
        slot = self.next_run if given is None else given
        return moments.aware(slot) if isinstance(slot, datetime) else moments.now()

    def upcoming(self, count: int = 5) -> list[datetime]:
        """Return the next slots."""
        if self.next_run is None or self.repeats == 0:
            return []
        first = self.next_run if isinstance(self.next_run, datetime) else self.first_run()
        if first is None:
            return []
        count = min(count, self.repeats) if self.repeats > 0 else count
        slots = recurrence.upcoming(self._recurrence(), moments.aware(first), count)
        return [moments.as_project(slot) for slot in slots]

    def describe(self) -> str:
        """Return in words when it fires."""
        slot = moments.aware(self.next_run) if isinstance(self.next_run, datetime) else None
        return recurrence.describe(self._recurrence(), slot)

    def last_task(self) -> Task | None:
        """Return the finished task of the last slot, or None."""
        if not self.task:
            return None
        if self._state.db is None:
            return Task.get_task(self.task)
        with at(self._state.db):
            return Task.get_task(self.task)

    def success(self) -> bool | None:
        """Return whether the last task succeeded; None: it has not finished, or its result is gone."""
        last = self.last_task()
        return None if last is None else last.success

    def decode_stored(self, attribute: str, text: str) -> Any:
        return read_stored(self, attribute, text, trusted=signing.verify_schedule_row(self))


class WorkerPool(models.Model):
    """A running pool and what its workers do."""

    id = TaskIdField(primary_key=True, editable=False)
    name = models.TextField()
    host = models.TextField()
    pid = models.IntegerField()
    queues = ArrayColumn(null=True)
    exclude_queues = ArrayColumn(null=True)
    status = models.TextField(db_default="starting")
    started_at = models.DateTimeField(db_default=Now())
    heartbeat = models.DateTimeField(db_default=Now())
    version = models.TextField(db_default="")
    workers = models.JSONField(db_default=models.Value([], models.JSONField()))
    retry = models.FloatField(db_default=60.0)
    clock_skew = models.FloatField(null=True)
    stalled_since = models.DateTimeField(null=True)

    class Meta:
        db_table = "pgq_worker"
        ordering: ClassVar = ["started_at"]
        verbose_name = _("Pool")
        verbose_name_plural = _("Pools")

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"
