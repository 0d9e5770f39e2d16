"""The forms: a task to enqueue, and a schedule with its next firings.

Form fields of stored columns are named otherwise than the columns (``arguments`` for args): a ModelForm reads the
attributes of its fields, and reading a signed row's args imports and loads what they name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime, AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.forms.utils import pretty_name
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq import codec
from pgq.admin import databases, display
from pgq.codec import literals, signing
from pgq.codec.stored import StoredText, stored_text
from pgq.conf import get_settings
from pgq.enqueue import registry
from pgq.enqueue.make import encode_arguments, make_task
from pgq.errors import EnqueueError, PgqError, reason_of
from pgq.models import Lane, QueuedTask, Schedule
from pgq.records import PRIORITY_MAX, PRIORITY_MIN, NewTask
from pgq.records.options import OF_SCHEDULE, TaskOptions
from pgq.recurrence import Recurrence, upcoming
from pgq.recurrence.moments import aware
from pgq.schedules import commands
from pgq.schedules.define import check_calls_of
from pgq.status import values

if TYPE_CHECKING:
    _QueuedTaskForm = forms.ModelForm[QueuedTask]
    _ScheduleForm = forms.ModelForm[Schedule]
else:
    _QueuedTaskForm = _ScheduleForm = forms.ModelForm

_ARGS_HELP = gettext_lazy("Python literals or JSON, separated by commas: 1, 'two', [3, 4]")
_KWARGS_HELP = gettext_lazy("Like a call or like a dict: x=1, y='two' or {'x': 1, 'y': 'two'}")


def allowed_functions() -> list[str]:
    """Return the paths that an unsigned row may name, without what runs management commands (see `commands`)."""
    return sorted({entry.path for entry in registry.all_registered()} - {commands.LISTED} | set(get_settings().allowed))


def read_arguments(field: str, text: str) -> Any:
    """Read args or kwargs from Python literals or, failing that, from JSON.

    Raises:
        ValueError: It is neither; the message names the field.
    """
    if not text.strip():
        return () if field == "args" else {}
    try:
        return literals.read(field, text)
    except ValueError:
        try:
            # As among literals, [1, 2] is one argument.
            value = json.loads(f"[{text}]" if field == "args" else text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            value = None
        if field == "args" and isinstance(value, list):
            return tuple(value)
        if field == "kwargs" and isinstance(value, dict):
            return value
        raise


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def write_arguments(field: str, value: Any) -> str:
    """Return args or kwargs as `read_arguments` reads them."""
    if field == "kwargs":
        return repr(value) if value else ""
    text = ", ".join(map(repr, value))
    return f"{text}," if len(value) == 1 and isinstance(value[0], tuple) else text


class _Suggestions(AdminTextInputWidget):
    """A text with suggestions: the queues there are."""

    template_name = "pgq/admin/suggestions.html"

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        lanes = Lane.objects.using(get_settings().database).order_by("queue").values_list("queue", flat=True)
        context = super().get_context(name, value, {**(attrs or {}), "list": f"id_{name}_suggestions"})
        return {**context, "suggestions": list(lanes.distinct()[:100])}


def _text(label: Any, help_text: Any = "", widget: Any = AdminTextInputWidget, **kwargs: Any) -> forms.CharField:
    return forms.CharField(
        label=label,
        help_text=help_text,
        widget=widget,
        required=False,
        empty_value=kwargs.pop("empty_value", None),
        **kwargs,
    )


def _literals_field(label: str, help_text: Any) -> forms.CharField:
    widget = AdminTextareaWidget(attrs={"rows": 2, "class": "vLargeTextField pgq-literals", "spellcheck": "false"})
    return _text(label, help_text, widget, empty_value="")


class QueuedTaskForm(_QueuedTaskForm):
    """Enqueues a registered function, with the options that its @task fixes, just as its `enqueue` does."""

    #: Set by the ModelAdmin.
    functions: Iterable[str] = ()
    #: What `clean` has made of it.
    task: NewTask

    func = forms.ChoiceField(label=gettext_lazy("func"), help_text=gettext_lazy("Functions registered with @task."))
    arguments = _literals_field("args", _ARGS_HELP)
    keywords = _literals_field("kwargs", _KWARGS_HELP)
    queue = _text(gettext_lazy("queue"), gettext_lazy("Empty: as @task says, or the default queue."), _Suggestions)
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
        _finish(self)
        if "func" in self.fields:
            self.fields["func"].choices = [("", "---------"), *((path, path) for path in self.functions)]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        given = {name: _read_field(self, form_name, name) for form_name, name in _STORED.items()}
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
            _add_named_error(self, error)
        else:
            databases.check_queue(self.task.queue)
        return cleaned

    def _post_clean(self) -> None:
        """Nothing is put into the instance, whose columns all have defaults: the task is what is enqueued."""
        if not self.errors:
            self.instance.pk, self.instance.name = self.task.id.hex, self.task.name


def _finish(form: forms.BaseForm) -> None:
    """Have labels begin as all in the admin do, and name the zone of times."""
    for name, field in form.fields.items():
        field.label = capfirst(str(field.label or pretty_name(name)))
        if isinstance(field, forms.SplitDateTimeField):
            field.help_text = _("In %(zone)s. %(text)s") % {
                "zone": timezone.get_current_timezone_name(),
                "text": field.help_text,
            }


#: Form fields of stored columns.
_STORED = {"arguments": "args", "keywords": "kwargs"}
_FORM_NAMES = {name: form_name for form_name, name in _STORED.items()}


def _read_field(form: forms.BaseForm, form_name: str, name: str) -> Any:
    try:
        return read_arguments(name, form.cleaned_data.get(form_name) or "")
    except ValueError as error:
        form.add_error(form_name, reason_of(error))
        return None


def _add_named_error(form: forms.BaseForm, error: EnqueueError) -> None:
    """Add an error to its field; above the form if that has no such field, with the field's name."""
    name = _FORM_NAMES.get(error.field, error.field)
    if name in form.fields:
        form.add_error(name, error.reason)
    else:
        form.add_error(None, str(error))


# ------------------------------------------------------------------------------------------------- schedules


def _zone_choices(present: str | None) -> list[tuple[str, Any]]:
    names = available_timezones() - {"localtime", "posixrules", "Factory"} | ({present} if present else set())
    return [("", _("as the project")), *((name, name) for name in sorted(names))]


class TimingForm(_ScheduleForm):
    """The fields of when a schedule fires: enough to show its next firings."""

    name = _text(gettext_lazy("name"), gettext_lazy("Also the group of its tasks."))
    schedule_type = forms.ChoiceField(label=gettext_lazy("type"), choices=Schedule.TYPE, initial=Schedule.DAILY)
    minutes = forms.IntegerField(
        label=gettext_lazy("minutes"),
        required=False,
        min_value=1,
        help_text=gettext_lazy("Type Minutes: between two firings."),
    )
    seconds = forms.FloatField(
        label=gettext_lazy("seconds"), required=False, help_text=gettext_lazy("Type Seconds: between two firings.")
    )
    cron = _text(
        gettext_lazy("cron"),
        gettext_lazy("Type Cron: minute, hour, day of month, month, day of week; seconds may stand as a sixth."),
    )
    time_zone = forms.TypedChoiceField(
        label=gettext_lazy("time zone"),
        required=False,
        empty_value=None,
        help_text=gettext_lazy("Whose days and hours are meant."),
    )
    next_run = forms.SplitDateTimeField(
        label=gettext_lazy("next run"),
        required=False,
        widget=AdminSplitDateTime,
        help_text=gettext_lazy("Empty: what the rule names next, or now."),
        show_hidden_initial=True,
    )
    repeats = forms.IntegerField(
        label=gettext_lazy("repeats"),
        initial=-1,
        show_hidden_initial=True,
        help_text=gettext_lazy("How many more times: -1 for ever, 0 not at all."),
    )

    class Meta:
        model = Schedule
        fields = ["name", "schedule_type", "minutes", "seconds", "cron", "time_zone", "next_run", "repeats"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _finish(self)
        #: The next run as it is in the table: a form knows no microseconds.
        self.stored_next_run = self.instance.__dict__.get("next_run")
        if "time_zone" in self.fields:
            self.fields["time_zone"].choices = _zone_choices(self.instance.time_zone)  # type: ignore[attr-defined]

    def has_new_timing(self) -> bool:
        names = {"schedule_type", "minutes", "seconds", "cron", "time_zone"}
        return self.instance.pk is None or bool(names.intersection(self.changed_data))

    def clean(self) -> dict[str, Any]:
        super().clean()  # which calls `validate_unique`
        cleaned = self.cleaned_data
        if "next_run" not in self.changed_data:
            cleaned["next_run"] = self.stored_next_run
        if self.has_new_timing() or "next_run" in self.changed_data:
            # Anchors hold a day and an hour that the old rule had.
            self.instance.day = self.instance.wall_time = None
        return cleaned

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        row = self.instance
        # A new cron rule sets the next run. With other types the next run is the anchor, so it stays.
        renewed = self.has_new_timing() and row.schedule_type == Schedule.CRON and "next_run" not in self.changed_data
        if not self.errors and (renewed or not isinstance(row.next_run, datetime)):
            row.next_run = row.first_run()

    def validate_unique(self) -> None:
        """Check the name in the right database, where Django would read the default one."""
        rows = Schedule.objects.using(get_settings().database)
        if self.instance.name and rows.filter(name=self.instance.name).exclude(pk=self.instance.pk).exists():
            self.add_error("name", _("There is another schedule of that name."))

    def add_error(self, field: str | None, error: Any) -> None:
        """Put errors of columns that the form does not have above the form."""
        if field is None and hasattr(error, "error_dict"):
            known: dict[str, Any] = {}
            for name, errors in error.error_dict.items():
                known.setdefault(name if name in self.fields else NON_FIELD_ERRORS, []).extend(errors)
            error = ValidationError(known)
        super().add_error(field, error)


def firings(row: Schedule, count: int = 5) -> tuple[str, list[datetime], tzinfo]:
    """Return in words when a schedule, saved or not, fires; its next slots; and the zone they are to be shown in.

    Raises:
        ValueError: It cannot fire; the message says why.
    """
    recurrence = Recurrence.of(row, get_settings().zone)
    words = row.describe()
    first = row.next_run if isinstance(row.next_run, datetime) else row.first_run()
    if first is None or row.repeats == 0:
        return words, [], recurrence.zone
    first = aware(first)
    return words, upcoming(recurrence, first, min(count, row.repeats) if row.repeats > 0 else count), recurrence.zone


class ScheduleForm(TimingForm):
    """A schedule. What Python signed stays signed as long as nothing changes of what it enqueues."""

    functions: Iterable[str] = ()
    #: Management commands. With any, the form has a field for one, in the place of a function.
    commands: Iterable[str] = ()

    func = forms.ChoiceField(label=gettext_lazy("func"), help_text=gettext_lazy("Functions registered with @task."))
    command = forms.ChoiceField(
        label=gettext_lazy("command"),
        required=False,
        help_text=gettext_lazy("A management command instead of a function. Each of its arguments apart: '-v', '0'."),
    )
    arguments = _literals_field("args", _ARGS_HELP)
    keywords = _literals_field("kwargs", _KWARGS_HELP)
    hook = forms.TypedChoiceField(
        label=gettext_lazy("hook"),
        required=False,
        empty_value=None,
        help_text=gettext_lazy("Called with each finished task."),
    )
    queue = _text(gettext_lazy("queue"), gettext_lazy("Empty: the default queue."), _Suggestions)
    priority = forms.IntegerField(
        label=gettext_lazy("priority"),
        initial=0,
        min_value=PRIORITY_MIN,
        max_value=PRIORITY_MAX,
        help_text=gettext_lazy("-100 to 100, larger is sooner."),
    )
    group = _text(gettext_lazy("group"), gettext_lazy("Of its tasks. Empty: the schedule's name."))
    task_name = _text(gettext_lazy("task name"), gettext_lazy("Of its tasks. Empty: four words."))
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
    intended_date_kwarg = _text(
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
        for form_name, name in _STORED.items():
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
            faithful = codec.canonical(json.loads(self.stored[name])) == self._encode(name, again)
        except (TypeError, ValueError, RecursionError, PgqError):
            text, faithful = "", False
        field = self.fields[form_name]
        if not faithful or len(text) > display.PREVIEW:
            field.disabled = True
            text = display.stored_value(self.instance, name, values.HIDDEN_NAMES) or ""
            field.help_text = _("Made in code, and more than can be written here. Kept as it is.")
        self.initial[form_name] = text[: display.PREVIEW]

    def _encode(self, name: str, value: Any) -> str:
        settings = get_settings()
        if name == "args":
            return encode_arguments(value, {}, settings)[0]
        return encode_arguments((), value, settings)[1]

    def is_valid(self) -> bool:
        # A preview shows the page again, with what it would be; nothing is saved.
        return super().is_valid() and "_preview" not in self.data

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        after = dict(self.stored)
        command = self._chosen_command(cleaned)
        for form_name, name in _STORED.items():
            if self.fields[form_name].disabled:
                continue
            value = _read_field(self, form_name, name)
            if form_name in self.errors:
                continue
            if command and name == "args":
                value = (command, *value)
            try:
                after[name] = self._encode(name, value)
            except EnqueueError as error:
                _add_named_error(self, error)
                continue
            if after[name] != self.stored[name]:
                # As values: what an unsigned row holds is not read as trusted when it is saved.
                setattr(self.instance, name, value)
                self.changed_columns.add(name)
        options = self._new_options(cleaned)
        if options != self.options:
            after["options"] = codec.canonical(options)
            self.instance.options = StoredText(after["options"])
            self.changed_columns.add("options")
        if not self.errors and (self.instance._state.adding or "queue" in self.changed_data):
            databases.check_queue(cleaned["queue"])
        if not self.errors:
            self._check_call(cleaned, after)
        if not self.errors:
            self._check_signature((cleaned["func"], cleaned["hook"], cleaned["queue"], *after.values()), after)
        return cleaned

    def _chosen_command(self, cleaned: dict[str, Any]) -> str | None:
        """Return the command, whose function is then the schedule's; None: a function is chosen."""
        if "command" not in self.fields or "func" in self.errors or "command" in self.errors:
            return None
        command: str | None = cleaned.get("command") or None
        if bool(command) == bool(cleaned.get("func")):
            self.add_error("command", _("Choose a function or a command, one of them."))
            return None
        if command:
            cleaned["func"] = commands.LISTED
        return command

    def _new_options(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        options = dict(self.options)
        for name in OF_SCHEDULE.values():
            if cleaned.get(name) is None:
                options.pop(name, None)
            elif name in self.changed_data:
                options[name] = cleaned[name]
        return options

    def _check_call(self, cleaned: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        """Refuse what its function, or its hook, cannot be called with.

        Only if that is new: a schedule that was wrong before can be paused all the same. And only of functions that any
        row may name: no others are imported because a row names them.
        """
        func, hook, slot = cleaned["func"], cleaned["hook"], cleaned["intended_date_kwarg"]
        texts_before = {name: self.stored[name] for name in ("args", "kwargs")}
        changed = {"func", "hook", "intended_date_kwarg"}.intersection(self.changed_data)
        if (
            self.instance.pk is not None
            and not changed
            and texts_before == {name: texts[name] for name in texts_before}
        ):
            return
        args, kwargs = codec.decode_args_for_display(texts["args"], texts["kwargs"])
        named = [path if path is not None and registry.may_be_named(path) else None for path in (func, hook)]
        try:
            check_calls_of(named[0], len(args), kwargs, slot, named[1])
        except EnqueueError as error:
            _add_named_error(self, error)

    def _check_signature(self, after: tuple[Any, ...], texts: Mapping[str, str]) -> None:
        """Refuse what could not run any more once the signature does not fit."""
        if self.is_signed and after == self.before:
            return
        if self.instance.signature is not None:
            self.changed_columns.add("signature")
            self.instance.signature = None
        why = (
            _("The schedule was made in code and signed. Changing what it enqueues takes the signature away, and then")
            if self.is_signed
            else _("The schedule is not signed, so")
        )
        for name, path in (("func", after[0]), ("hook", after[1])):
            is_command = name == "func" and path == commands.LISTED and "command" in self.fields
            if path is not None and path not in self.functions and not is_command:
                self.add_error(name, _("%s it may only name a function registered with @task.") % why)
        try:
            codec.decode_args(texts["args"], texts["kwargs"], trusted=False)
        except PgqError as error:
            self.add_error(None, _("%(why)s its arguments could not be read: %(error)s") % {"why": why, "error": error})

    def columns(self) -> list[str]:
        """Return the columns to write: the rest may have been changed by a tick since the form was opened."""
        changed = self.changed_columns | (set(self.changed_data) & set(ScheduleForm.Meta.fields))
        if self.instance.next_run != self.stored_next_run:
            changed.add("next_run")
        if self.has_new_timing() or "next_run" in changed:
            changed |= {"day", "wall_time"}
        if changed:
            self.instance.error = None
            changed.add("error")
        return sorted(changed)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
