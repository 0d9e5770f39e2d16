"""Live tasks."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from pgq.codec import signing
from pgq.fields import ArgsField, KwargsField, NameField, OptionalTextField, StoredField, TaskIdField
from pgq.models.named import NamedRow
from pgq.models.placed import PlacedManager


class QueuedTask(NamedRow):
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
