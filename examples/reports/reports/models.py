from django.db import models


class Report(models.Model):
    rows = models.PositiveIntegerField()
    task_id = models.UUIDField(null=True)
    text = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"report {self.pk}"
