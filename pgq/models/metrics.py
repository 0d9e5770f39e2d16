"""Django's view of the tables of numbers over time, which workers and upkeep write; see `pgq.status.metrics`."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

__all__ = ["Finding", "Gauge", "Mark", "Metric", "RawMetric", "Total"]

_CLOCK = models.Func(function="clock_timestamp")


class ArrayColumn(models.JSONField):
    """A column of an array type, only read. (Django's ArrayField wants django.contrib.postgres installed.)"""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs


def _count() -> Any:
    return models.BigIntegerField(db_default=0, editable=False)


class _Counted(models.Model):
    """How many tasks had which outcome, and how long they took and waited, in microseconds."""

    succeeded = _count()
    failed = _count()
    retried = _count()
    cancelled = _count()
    timed_out = _count()
    crashed = _count()
    parked = _count()
    discarded = _count()
    run_us_sum = _count()
    run_us_max = _count()
    run_from = models.SmallIntegerField(null=True, editable=False)
    run_hist = ArrayColumn(null=True, editable=False)
    wait_us_sum = _count()
    wait_us_max = _count()
    wait_from = models.SmallIntegerField(null=True, editable=False)
    wait_hist = ArrayColumn(null=True, editable=False)

    class Meta:
        abstract = True


class Metric(_Counted):
    """What was settled in one minute, ten minutes or hour, of one queue and function."""

    pk = models.CompositePrimaryKey("span", "at", "queue", "func")
    span = models.SmallIntegerField()
    at = models.DateTimeField()
    queue = models.TextField()
    func = models.TextField()

    class Meta:
        db_table = "pgq_metric"
        default_permissions: ClassVar = ()

    def __str__(self) -> str:
        return f"{self.func} in {self.queue}, {self.span} min from {self.at}"


class Total(_Counted):
    """The same since the beginning: counters that only grow."""

    pk = models.CompositePrimaryKey("queue", "func")
    queue = models.TextField()
    func = models.TextField()
    since = models.DateTimeField(db_default=_CLOCK)
    updated_at = models.DateTimeField(db_default=_CLOCK)

    class Meta:
        db_table = "pgq_total"
        default_permissions: ClassVar = ()

    def __str__(self) -> str:
        return f"{self.func} in {self.queue}"


class RawMetric(models.Model):
    """What one worker has counted between two flushes."""

    pk = models.CompositePrimaryKey("worker", "seq")
    worker = models.UUIDField()
    seq = models.IntegerField()
    at = models.DateTimeField(db_default=_CLOCK)
    body = models.JSONField()
    folded = models.DateTimeField(null=True)

    class Meta:
        db_table = "pgq_metric_raw"
        default_permissions: ClassVar = ()

    def __str__(self) -> str:
        return f"{self.worker} {self.seq}"


class Gauge(models.Model):
    """How many tasks a queue had at a moment. The queue is empty for all queues together."""

    pk = models.CompositePrimaryKey("span", "at", "queue")
    span = models.SmallIntegerField(db_default=1)
    at = models.DateTimeField()
    queue = models.TextField()
    ready = models.BigIntegerField()
    running = models.BigIntegerField()
    waiting = models.BigIntegerField()
    parked = models.BigIntegerField()
    oldest_ready = models.FloatField(null=True)
    workers = models.IntegerField(db_default=0)
    busy = models.IntegerField(db_default=0)
    paused = models.BooleanField(db_default=False)
    exact = models.BooleanField(db_default=True)

    class Meta:
        db_table = "pgq_gauge"
        default_permissions: ClassVar = ()

    def __str__(self) -> str:
        return f"{self.queue or 'all queues'} at {self.at}"


class Mark(models.Model):
    """A moment to show in charts: a new release, or what was marked by hand."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=_CLOCK)
    label = models.TextField()
    kind = models.TextField(db_default="mark")
    author = models.TextField(null=True)

    class Meta:
        db_table = "pgq_mark"
        default_permissions: ClassVar = ("add", "view")
        ordering: ClassVar = ["-at"]
        verbose_name = _("Mark")
        verbose_name_plural = _("Marks")

    def __str__(self) -> str:
        return str(self.label)


class Finding(models.Model):
    """What a check found when upkeep last ran it, and since when."""

    check_name = models.TextField(primary_key=True, db_column="check")
    status = models.TextField()
    detail = models.TextField(db_default="")
    advice = models.TextField(db_default="")
    since = models.DateTimeField(db_default=_CLOCK)
    checked_at = models.DateTimeField(db_default=_CLOCK)

    class Meta:
        db_table = "pgq_finding"
        default_permissions: ClassVar = ()
        verbose_name = _("Finding")
        verbose_name_plural = _("Findings")

    def __str__(self) -> str:
        return f"{self.check_name}: {self.status}"
