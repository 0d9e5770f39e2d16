"""Running pools."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from pgq.fields import TaskIdField
from pgq.models.metrics import ArrayColumn


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
