"""What the admin lists the dashboard under."""

from __future__ import annotations

from typing import ClassVar

from django.utils.translation import gettext_lazy as _

from pgq.models.metrics import Mark


class Dashboard(Mark):
    """A place in the admin's index, whatever its skin, and what the dashboard's permissions belong to.

    It stands for no rows: a proxy, since `dumpdata` reads the table of each other model, managed or not.
    """

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("Dashboard")
        verbose_name_plural = _("Dashboard")
        permissions: ClassVar = [
            ("operate_dashboard", "Can act on all tasks that match"),
            ("pause_queue", "Can pause and resume queues"),
        ]

    def __str__(self) -> str:
        return "Dashboard"
