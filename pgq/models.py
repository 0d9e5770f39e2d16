"""Django's view of the tables, with the names Django-Q users know.

The tables are made by migrations_sql; a test holds these classes against them. Behaviour is elsewhere: here are only
names, readers and what Django-Q's models offered on top.
"""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from pgq import codec, ids, signing
from pgq.fields import StoredField, TaskIdField


class _Named(models.Model):
    """Shared by queued and finished tasks: the name made from the id, and careful reading of stored values."""

    class Meta:
        abstract = True

    id: Any
    name: Any

    @property
    def display_name(self) -> str:
        """The given name, or the four words of the id."""
        return self.name or ids.task_name(UUID(str(self.id)))

    def decode_stored(self, attribute: str, text: str) -> Any:
        """Decode a stored value; what would import or load anything stays a description unless the row is signed."""
        value = codec.decode(text, trusted=True) if self._is_signed() else codec.decode_for_display(text)
        return tuple(value) if attribute == "args" and isinstance(value, list) else value

    def _is_signed(self) -> bool:
        raise NotImplementedError


class QueuedTask(_Named):
    """A live task: ready, waiting for a time, running or parked. Creating one enqueues it (see `pgq.registry`)."""

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
    args = StoredField(db_default=models.Value([], StoredField()))
    kwargs = StoredField(db_default=models.Value({}, StoredField()))
    options = StoredField(db_default=models.Value({}, StoredField()))
    name = models.TextField(null=True, blank=True)
    group = models.TextField(null=True, blank=True)
    hook = models.TextField(null=True, blank=True)
    timeout = models.FloatField(null=True, blank=True, help_text=_("seconds"))
    run_after = models.DateTimeField(null=True, blank=True)
    remaining = models.IntegerField(null=True, blank=True, editable=False)
    parked = models.TextField(null=True, blank=True, editable=False)
    schedule = models.BigIntegerField(null=True, blank=True, editable=False)
    slot = models.DateTimeField(null=True, blank=True, editable=False)
    signature = models.BinaryField(null=True, editable=False)
    history = models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)
    enqueued_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False)
    lock = models.DateTimeField(null=True, blank=True, editable=False)
    worker = TaskIdField(null=True, blank=True, editable=False)
    receipt = TaskIdField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "pgq_queue"
        verbose_name = _("Queued task")
        verbose_name_plural = _("Queued tasks")

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


class Task(_Named):
    """A finished task."""

    id = TaskIdField(primary_key=True, editable=False)
    success = models.BooleanField(editable=False)
    attempt_count = models.SmallIntegerField(db_default=0, editable=False)
    priority = models.SmallIntegerField(db_default=0, editable=False)
    max_attempts = models.IntegerField(db_default=1, editable=False)
    timeout = models.FloatField(null=True, editable=False)
    started = models.DateTimeField(editable=False)
    stopped = models.DateTimeField(editable=False)
    enqueued_at = models.DateTimeField(editable=False)
    func = models.TextField()
    queue = models.TextField(editable=False)
    args = StoredField(db_default=models.Value([], StoredField()), editable=False)
    kwargs = StoredField(db_default=models.Value({}, StoredField()), editable=False)
    options = StoredField(db_default=models.Value({}, StoredField()), editable=False)
    value = StoredField(null=True, editable=False, db_column="result")
    name = models.TextField(null=True, editable=False)
    group = models.TextField(null=True, editable=False)
    hook = models.TextField(null=True)
    cluster = models.TextField(null=True, editable=False)
    worker = TaskIdField(null=True, editable=False)
    schedule = models.BigIntegerField(null=True, editable=False)
    exception = models.TextField(null=True, editable=False)
    message = models.TextField(null=True, editable=False)
    traceback = models.TextField(null=True, editable=False)
    signature = models.BinaryField(null=True, editable=False)
    history = models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)

    class Meta:
        db_table = "pgq_task"
        # Newest first, as in Django-Q; by id, whose index serves it.
        ordering: ClassVar = ["-id"]
        verbose_name = _("Task")
        verbose_name_plural = _("Tasks")

    def __str__(self) -> str:
        return self.display_name

    @property
    def result(self) -> Any:
        """The value the function returned; of a failure, as in Django-Q, the text of the error and its traceback."""
        return self.value if self.success else f"{self.message} : {self.traceback}"

    def time_taken(self) -> float:
        """Return the seconds the last attempt ran. (Django-Q counts from the enqueue.)"""
        return (self.stopped - self.started).total_seconds()

    def decode_stored(self, attribute: str, text: str) -> Any:
        if attribute == "value":
            inner, trusted = signing.unseal(UUID(self.id), text)
            return codec.decode(inner, trusted=True) if trusted else codec.decode_for_display(text)
        return super().decode_stored(attribute, text)

    def _is_signed(self) -> bool:
        return signing.verify_row(self)


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

    objects: ClassVar[FailureManager] = FailureManager()

    class Meta:
        proxy = True
        ordering: ClassVar = ["-id"]
        verbose_name = _("Failed task")
        verbose_name_plural = _("Failed tasks")


class Schedule(models.Model):
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
    name = models.TextField(null=True, blank=True, unique=True)
    func = models.TextField()
    hook = models.TextField(null=True, blank=True)
    args = StoredField(db_default=models.Value([], StoredField()), blank=True)
    kwargs = StoredField(db_default=models.Value({}, StoredField()), blank=True)
    options = StoredField(db_default=models.Value({}, StoredField()), blank=True)
    queue = models.TextField(null=True, blank=True)
    priority = models.SmallIntegerField(db_default=0)
    schedule_type = models.TextField(choices=TYPE, default=ONCE, db_default=ONCE)
    minutes = models.IntegerField(null=True, blank=True)
    seconds = models.FloatField(null=True, blank=True)
    cron = models.TextField(null=True, blank=True)
    repeats = models.IntegerField(default=-1, db_default=-1)
    next_run = models.DateTimeField(null=True, blank=True, db_default=Now())
    time_zone = models.TextField(null=True, blank=True)
    catch_up = models.BooleanField(null=True, blank=True)
    overlap = models.TextField(choices=OVERLAP, default="allow", db_default="allow")
    jitter = models.FloatField(default=0, db_default=0)
    paused = models.BooleanField(default=False, db_default=False)
    intended_date_kwarg = models.TextField(null=True, blank=True)
    day = models.SmallIntegerField(null=True, blank=True, editable=False)
    wall_time = models.TimeField(null=True, blank=True, editable=False)
    task = TaskIdField(null=True, editable=False)
    last_slot = models.DateTimeField(null=True, editable=False)
    error = models.TextField(null=True, editable=False)
    signature = models.BinaryField(null=True, editable=False)

    class Meta:
        db_table = "pgq_schedule"
        ordering: ClassVar = ["next_run"]
        verbose_name = _("Schedule")
        verbose_name_plural = _("Schedules")

    def __str__(self) -> str:
        return self.name or self.func

    def decode_stored(self, attribute: str, text: str) -> Any:
        value = (
            codec.decode(text, trusted=True) if signing.verify_schedule_row(self) else codec.decode_for_display(text)
        )
        return tuple(value) if attribute == "args" and isinstance(value, list) else value


class WorkerPool(models.Model):
    """A running pool and what its workers do."""

    id = TaskIdField(primary_key=True, editable=False)
    name = models.TextField()
    host = models.TextField()
    pid = models.IntegerField()
    queues = models.JSONField(null=True)
    status = models.TextField(db_default="starting")
    started_at = models.DateTimeField(db_default=Now())
    heartbeat = models.DateTimeField(db_default=Now())
    version = models.TextField(db_default="")
    workers = models.JSONField(db_default=models.Value([], models.JSONField()))

    class Meta:
        db_table = "pgq_worker"
        ordering: ClassVar = ["started_at"]
        verbose_name = _("Pool")
        verbose_name_plural = _("Pools")

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"
