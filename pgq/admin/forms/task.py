"""The form of a task to enqueue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime
from django.utils.translation import gettext_lazy

from pgq.admin import databases
from pgq.admin.forms.fields import (
    ARGS_HELP,
    KWARGS_HELP,
    STORED,
    Suggestions,
    add_named_error,
    finish,
    literals_field,
    read_field,
    text_field,
)
from pgq.enqueue.make import make_task
from pgq.errors import EnqueueError
from pgq.models import QueuedTask
from pgq.records import PRIORITY_MAX, PRIORITY_MIN, NewTask
from pgq.records.options import TaskOptions

if TYPE_CHECKING:
    _Form = forms.ModelForm[QueuedTask]
else:
    _Form = forms.ModelForm


class QueuedTaskForm(_Form):
    """Enqueues a registered function, with the options that its @task fixes, just as its `enqueue` does."""

    #: Set by the ModelAdmin.
    functions: Iterable[str] = ()
    #: What `clean` has made of it.
    task: NewTask

    func = forms.ChoiceField(label=gettext_lazy("func"), help_text=gettext_lazy("Functions registered with @task."))
    arguments = literals_field("args", ARGS_HELP)
    keywords = literals_field("kwargs", KWARGS_HELP)
    queue = text_field(gettext_lazy("queue"), gettext_lazy("Empty: as @task says, or the default queue."), Suggestions)
    priority = forms.IntegerField(
        label=gettext_lazy("priority"),
        required=False,
        min_value=PRIORITY_MIN,
        max_value=PRIORITY_MAX,
        help_text=gettext_lazy("-100 to 100, larger is sooner. Empty: as @task says, or 0."),
    )
    run_after = forms.SplitDateTimeField(
        label=gettext_lazy("run after"),
        required=False,
        widget=AdminSplitDateTime,
        help_text=gettext_lazy("Empty: at once."),
    )

    class Meta:
        model = QueuedTask
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        finish(self)
        if "func" in self.fields:
            self.fields["func"].choices = [("", "---------"), *((path, path) for path in self.functions)]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        given = {name: read_field(self, form_name, name) for form_name, name in STORED.items()}
        if self.errors:
            return cleaned
        try:
            self.task = make_task(
                cleaned["func"],
                given["args"],
                given["kwargs"],
                TaskOptions.of(queue=cleaned["queue"], priority=cleaned["priority"], run_after=cleaned["run_after"]),
            )
        except EnqueueError as error:
            add_named_error(self, error)
        else:
            databases.check_queue(self.task.queue)
        return cleaned

    def _post_clean(self) -> None:
        """Nothing is put into the instance, whose columns all have defaults: the task is what is enqueued."""
        if not self.errors:
            self.instance.pk, self.instance.name = self.task.id.hex, self.task.name
