"""What the examples of Django-Q's manual run: as there, with only the names changed."""

from __future__ import annotations

import numpy as np
from django.core.mail import send_mail
from django.template import Context, Template

from pgq.tasks import async_task
from tests.app.models import Note

SENDER = "from@example.com"


def inform_user(user):
    send_mail("Your address has changed", f"Dear {user.get_username()}, it is {user.email} now.", SENDER, [user.email])


def create_html_report(user, title):
    if title == "impossible":
        raise ValueError("no such report")
    return Template("<h1>{{ title }} for {{ user }}</h1>").render(Context({"title": title, "user": user}))


def email_report(task):
    if task.success:
        # The result is the report, the first argument the user.
        async_task("django.core.mail.send_mail", "The report you asked for", task.result, SENDER, [task.args[0].email])
    else:
        async_task("django.core.mail.mail_admins", "A report failed", task.result)


def parzen_estimation(x_samples, point_x, h):
    """Estimate a density by a window of width h: count the samples inside it."""
    inside = np.all(np.abs((x_samples - point_x.T) / h) <= 0.5, axis=1).sum()
    return {"h": h, "estimation": (inside / len(x_samples)) / h ** point_x.shape[0]}


def print_result(task):
    Note.objects.create(text=f"{task.name}: {task.result}")
