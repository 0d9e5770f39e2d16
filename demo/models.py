"""What the demo's tasks write."""

from __future__ import annotations

from django.db import models
from django.db.models import Count, Sum
from django.db.models.functions import Coalesce


class Counts(models.Model):
    """What is counted, in one file or in all."""

    lines = models.PositiveIntegerField(default=0)
    comments = models.PositiveIntegerField(default=0)
    imports = models.PositiveIntegerField(default=0)
    functions = models.PositiveIntegerField(default=0)
    classes = models.PositiveIntegerField(default=0)

    class Meta:
        abstract = True


class SourceFile(Counts):
    """A source file; written by the task that has parsed it."""

    path = models.TextField(primary_key=True)
    parsed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["path"]

    def __str__(self) -> str:
        return self.path


class Summary(Counts):
    """The totals: one row, written anew by each run of the task `refresh_summary`."""

    files = models.PositiveIntegerField(default=0)
    refreshed_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "summary"

    def __str__(self) -> str:
        return f"{self.files} files"

    def totals(self) -> dict[str, int]:
        return {"files": self.files} | {field.name: getattr(self, field.name) for field in Counts._meta.fields}

    @classmethod
    def refresh(cls) -> Summary:
        """Add up the files in the database, which is better at it."""
        sums = {field.name: Coalesce(Sum(field.name), 0) for field in Counts._meta.fields}
        totals = SourceFile.objects.aggregate(files=Count("path"), **sums)
        return cls.objects.update_or_create(pk=1, defaults=totals)[0]
