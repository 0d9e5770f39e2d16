"""Fields of the forms, and how arguments are read and shown in them."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.forms.utils import pretty_name
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.codec import literals
from pgq.conf import get_settings
from pgq.enqueue import registry
from pgq.errors import EnqueueError, reason_of
from pgq.models import Lane
from pgq.schedules import commands

ARGS_HELP = gettext_lazy("Python literals or JSON, separated by commas: 1, 'two', [3, 4]")
KWARGS_HELP = gettext_lazy("Like a call or like a dict: x=1, y='two' or {'x': 1, 'y': 'two'}")


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


class Suggestions(AdminTextInputWidget):
    """A text with suggestions: the queues there are."""

    template_name = "pgq/admin/suggestions.html"

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        lanes = Lane.objects.using(get_settings().database).order_by("queue").values_list("queue", flat=True)
        context = super().get_context(name, value, {**(attrs or {}), "list": f"id_{name}_suggestions"})
        return {**context, "suggestions": list(lanes.distinct()[:100])}


def text_field(label: Any, help_text: Any = "", widget: Any = AdminTextInputWidget, **kwargs: Any) -> forms.CharField:
    return forms.CharField(
        label=label,
        help_text=help_text,
        widget=widget,
        required=False,
        empty_value=kwargs.pop("empty_value", None),
        **kwargs,
    )


def literals_field(label: str, help_text: Any) -> forms.CharField:
    widget = AdminTextareaWidget(attrs={"rows": 2, "class": "vLargeTextField pgq-literals", "spellcheck": "false"})
    return text_field(label, help_text, widget, empty_value="")


def finish(form: forms.BaseForm) -> None:
    """Have labels begin as all in the admin do, and name the zone of times."""
    for name, field in form.fields.items():
        field.label = capfirst(str(field.label or pretty_name(name)))
        if isinstance(field, forms.SplitDateTimeField):
            field.help_text = _("In %(zone)s. %(text)s") % {
                "zone": timezone.get_current_timezone_name(),
                "text": field.help_text,
            }


#: Form fields of stored columns.
STORED = {"arguments": "args", "keywords": "kwargs"}
FORM_NAMES = {name: form_name for form_name, name in STORED.items()}


def read_field(form: forms.BaseForm, form_name: str, name: str) -> Any:
    try:
        return read_arguments(name, form.cleaned_data.get(form_name) or "")
    except ValueError as error:
        form.add_error(form_name, reason_of(error))
        return None


def add_named_error(form: forms.BaseForm, error: EnqueueError) -> None:
    """Add an error to its field; above the form if that has no such field, with the field's name."""
    name = FORM_NAMES.get(error.field, error.field)
    if name in form.fields:
        form.add_error(name, error.reason)
    else:
        form.add_error(None, str(error))
