"""The form of what a schedule enqueues: its function or command, arguments and options."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq import codec
from pgq.admin import display
from pgq.admin.forms.fields import (
    ARGS_HELP,
    KWARGS_HELP,
    STORED,
    Suggestions,
    literals_field,
    read_arguments,
    text_field,
    write_arguments,
)
from pgq.admin.forms.timing import TimingForm
from pgq.codec import signing
from pgq.codec.stored import stored_text
from pgq.conf import get_settings
from pgq.enqueue.make import encode_arguments
from pgq.errors import PgqError
from pgq.models import Schedule
from pgq.records import PRIORITY_MAX, PRIORITY_MIN
from pgq.records.options import OF_SCHEDULE
from pgq.schedules import commands
from pgq.status import values


class CallForm(TimingForm):
    """The fields of what a schedule enqueues, filled with what is stored."""

    functions: Iterable[str] = ()
    #: Management commands. With any, the form has a field for one, in the place of a function.
    commands: Iterable[str] = ()

    func = forms.ChoiceField(label=gettext_lazy("func"), help_text=gettext_lazy("Functions registered with @task."))
    command = forms.ChoiceField(
        label=gettext_lazy("command"),
        required=False,
        help_text=gettext_lazy("A management command instead of a function. Each of its arguments apart: '-v', '0'."),
    )
    arguments = literals_field("args", ARGS_HELP)
    keywords = literals_field("kwargs", KWARGS_HELP)
    hook = forms.TypedChoiceField(
        label=gettext_lazy("hook"),
        required=False,
        empty_value=None,
        help_text=gettext_lazy("Called with each finished task."),
    )
    queue = text_field(gettext_lazy("queue"), gettext_lazy("Empty: the default queue."), Suggestions)
    priority = forms.IntegerField(
        label=gettext_lazy("priority"),
        initial=0,
        min_value=PRIORITY_MIN,
        max_value=PRIORITY_MAX,
        help_text=gettext_lazy("-100 to 100, larger is sooner."),
    )
    group = text_field(gettext_lazy("group"), gettext_lazy("Of its tasks. Empty: the schedule's name."))
    task_name = text_field(gettext_lazy("task name"), gettext_lazy("Of its tasks. Empty: four words."))
    timeout = forms.FloatField(
        label=gettext_lazy("timeout"),
        required=False,
        help_text=gettext_lazy("Seconds one attempt may run. Empty: as configured."),
    )
    max_attempts = forms.IntegerField(
        label=gettext_lazy("attempts allowed"),
        required=False,
        min_value=0,
        help_text=gettext_lazy("Attempts that may fail; 0: no limit. Empty: as configured."),
    )
    intended_date_kwarg = text_field(
        gettext_lazy("intended date kwarg"),
        gettext_lazy("Keyword argument that is given the time it should have fired."),
    )
    catch_up = forms.TypedChoiceField(
        label=gettext_lazy("catch up"),
        required=False,
        empty_value=None,
        coerce=lambda value: value == "True",
        choices=[("", gettext_lazy("as configured")), ("True", gettext_lazy("yes")), ("False", gettext_lazy("no"))],
        help_text=gettext_lazy("After an outage: fire all the slots that were missed, or one for all of them."),
    )
    overlap = forms.ChoiceField(
        label=gettext_lazy("overlap"),
        choices=Schedule.OVERLAP,
        initial="allow",
        help_text=gettext_lazy("When a slot comes while a task of this schedule still waits or runs."),
    )
    jitter = forms.FloatField(
        label=gettext_lazy("jitter"),
        initial=0,
        min_value=0,
        help_text=gettext_lazy("Seconds by which each task is delayed at most, at random."),
    )

    class Meta(TimingForm.Meta):
        fields = [
            *TimingForm.Meta.fields,
            "func",
            "hook",
            "queue",
            "priority",
            "overlap",
            "catch_up",
            "jitter",
            "paused",
            "intended_date_kwarg",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        empty = {"args": "[]", "kwargs": "{}", "options": "{}"}
        self.stored = {name: stored_text(row, name) or text for name, text in empty.items()}
        self.is_signed = row.pk is not None and signing.verify_schedule_row(row)
        #: What the row enqueues now; the signature is over just this.
        self.before = (row.func, row.hook, row.queue, *self.stored.values())
        self.options = _object(self.stored["options"])
        #: Columns that `clean` found to be changed.
        self.changed_columns: set[str] = set()
        if "func" not in self.fields:  # for users who may only view
            return
        if "paused" in self.fields:
            self.fields["paused"].show_hidden_initial = True
        #: The command that the row runs now.
        self.present_command = self._command() if row.func == commands.LISTED else None
        self._offer_commands()
        self._offer("func", None if self.present_command else row.func)
        self._offer("hook", row.hook)
        for name in OF_SCHEDULE.values():
            self.initial.setdefault(name, self.options.get(name))
        if row.catch_up is not None:
            self.initial["catch_up"] = str(row.catch_up)  # as its choices are, so that it does not count as changed
        for form_name, name in STORED.items():
            self._show_stored(form_name, name)

    def _command(self) -> str | None:
        args = codec.decode_args_for_display(self.stored["args"], self.stored["kwargs"])[0]
        return args[0] if args and args[0] in self.commands else None

    def _offer_commands(self) -> None:
        if not self.commands:
            del self.fields["command"]
            return
        self.fields["command"].choices = [("", "---------"), *((name, name) for name in self.commands)]  # type: ignore[attr-defined]
        self.fields["func"].required = False
        if self.present_command:
            self.initial.update(command=self.present_command, func="")

    def _offer(self, name: str, present: str | None) -> None:
        field = self.fields[name]
        choices = [("", "---------"), *((path, path) for path in self.functions)]
        if present and present not in self.functions:
            choices.append((present, _("%s (made in code)") % display.cut(present, 200)))
            field.help_text = _(
                "This function is not registered with @task: code named it. It stays as long as the schedule is signed."
            )
        field.choices = choices  # type: ignore[attr-defined]

    def _show_stored(self, form_name: str, name: str) -> None:
        """Show args or kwargs as literals; what literals cannot express is shown, and kept as it is."""
        args, kwargs = codec.decode_args_for_display(self.stored["args"], self.stored["kwargs"])
        before = (self.present_command,) if name == "args" and self.present_command else ()
        value = args[len(before) :] if name == "args" else kwargs
        try:
            text = write_arguments(name, value)
            read = read_arguments(name, text)
            again = (*before, *read) if before else read
            faithful = codec.canonical(json.loads(self.stored[name])) == self.encode(name, again)
        except (TypeError, ValueError, RecursionError, PgqError):
            text, faithful = "", False
        field = self.fields[form_name]
        if not faithful or len(text) > display.PREVIEW:
            field.disabled = True
            text = display.stored_value(self.instance, name, values.HIDDEN_NAMES) or ""
            field.help_text = _("Made in code, and more than can be written here. Kept as it is.")
        self.initial[form_name] = text[: display.PREVIEW]

    def encode(self, name: str, value: Any) -> str:
        """Return args or kwargs as they are stored."""
        settings = get_settings()
        if name == "args":
            return encode_arguments(value, {}, settings)[0]
        return encode_arguments((), value, settings)[1]


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
