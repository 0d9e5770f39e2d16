"""What the admin lists the dashboard under."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Dashboard(models.Model):
    """No table: a place in the admin's index, whatever its skin, and what the dashboard's permissions belong to."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("Dashboard")
        verbose_name_plural = _("Dashboard")
        permissions: ClassVar = [
            ("operate_dashboard", "Can act on all tasks that match"),
            ("pause_queue", "Can pause and resume queues"),
        ]

    def __str__(self) -> str:
        return "Dashboard"
