"""The form of when a schedule fires, and its next firings."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin.forms.fields import finish, text_field
from pgq.conf import get_settings
from pgq.models import Schedule
from pgq.recurrence import Recurrence, upcoming
from pgq.recurrence.moments import aware

if TYPE_CHECKING:
    _Form = forms.ModelForm[Schedule]
else:
    _Form = forms.ModelForm


def _zone_choices(present: str | None) -> list[tuple[str, Any]]:
    names = available_timezones() - {"localtime", "posixrules", "Factory"} | ({present} if present else set())
    return [("", _("as the project")), *((name, name) for name in sorted(names))]


class TimingForm(_Form):
    """The fields of when a schedule fires: enough to show its next firings."""

    name = text_field(gettext_lazy("name"), gettext_lazy("Also the group of its tasks."))
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
    cron = text_field(
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
        finish(self)
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
