"""Finished tasks, and those of them that succeeded or failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pgq.codec import signing
from pgq.conf import asked, get_settings, places
from pgq.fields import (
    ArgsField,
    ExceptionField,
    KwargsField,
    NameField,
    OptionalTextField,
    OutcomeField,
    StoredField,
    TaskIdField,
)
from pgq.ground import ids
from pgq.models.named import NamedRow, read_stored


class Task(NamedRow):
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
