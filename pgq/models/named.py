"""What queued and finished tasks share: their names, their stored values, and what a task says of itself."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from django.db import models
from django.utils.translation import gettext_lazy as _

from pgq.codec.reading import read_args, read_value
from pgq.codec.stored import stored_text
from pgq.conf import get_settings, places
from pgq.fields import KeepsText, TaskIdField
from pgq.ground import ids


def read_stored(row: models.Model, attribute: str, text: str, *, trusted: bool) -> Any:
    """Decode a stored value of a row; untrusted, as a description that imports, loads and unpickles nothing."""
    args, kwargs = stored_text(row, "args"), stored_text(row, "kwargs")
    if attribute in ("args", "kwargs") and args is not None and kwargs is not None:
        value = read_args(args, kwargs, trusted=trusted)[0 if attribute == "args" else 1]
    else:
        value = read_value(text, trusted=trusted)
    return tuple(value) if attribute == "args" and isinstance(value, list) else value


class NamedRow(KeepsText, models.Model):
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
