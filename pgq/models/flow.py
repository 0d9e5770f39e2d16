"""What claims know of queues and keys: lanes, limits, and unique keys that are taken for a time."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from pgq.fields import TaskIdField


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
    limited_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False)

    class Meta:
        db_table = "pgq_rate"

    def __str__(self) -> str:
        return f"{self.scope} {self.name}"
