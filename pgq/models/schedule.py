"""Schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from pgq import recurrence
from pgq.codec import signing
from pgq.conf import at, get_settings
from pgq.errors import field_of
from pgq.fields import ArgsField, KwargsField, OptionalTextField, StoredField, TaskIdField
from pgq.models import schedule_row
from pgq.models.finished import Task
from pgq.models.named import read_stored
from pgq.models.schedule_row import NextRunField, ScheduleManager, ScheduleRow, TypeField
from pgq.recurrence import moments


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
