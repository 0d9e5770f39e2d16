"""When a schedule fires next, on its page, and while its form is filled in."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.forms import Media
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.loader import render_to_string
from django.urls import path
from django.utils import dateformat
from django.utils.translation import gettext_lazy

from pgq import recurrence
from pgq.admin import display
from pgq.admin.cells import StoredCells
from pgq.admin.forms.timing import TimingForm, firings
from pgq.conf import get_settings
from pgq.models import Schedule
from pgq.recurrence import moments


class FiringsPreview(StoredCells):
    """The panel of next firings, and the view that answers a form with it."""

    @property
    def media(self) -> Media:
        return super().media + Media(js=["pgq/schedule.js"])

    def get_urls(self) -> Any:
        name = f"{self.opts.app_label}_{self.opts.model_name}_preview"
        return [path("preview/", self.admin_site.admin_view(self.preview_view), name=name), *super().get_urls()]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Answer a form that was filled in with its next firings, as a fragment. Nothing is saved."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = None
        if request.GET.get("id"):
            row = self.get_object(request, request.GET["id"])
            if row is None:
                raise Http404
        if not (self.has_change_permission(request, row) if row else self.has_add_permission(request)):
            raise PermissionDenied
        form = TimingForm(request.POST, instance=row)
        form.is_valid()
        errors = {form.fields[name].label or name: found for name, found in form.errors.items() if name in form.fields}
        return HttpResponse(self._firings(form.instance, errors))

    def _firings(self, row: Any, errors: Any = None) -> str:
        context: dict[str, Any] = {"errors": errors}
        if not errors:
            try:
                words, slots, zone = firings(row)
            except (ValueError, OverflowError) as error:
                context["fault"] = str(error)
            else:
                now = moments.now()
                context |= {
                    "words": words,
                    "zone": str(zone),
                    "doubt": recurrence.doubt(recurrence.Recurrence.of(row, get_settings().zone)),
                    "paused": row.paused,
                    "ended": not slots,
                    "slots": [
                        (
                            slot.isoformat(),
                            f"{dateformat.format(slot.astimezone(zone), 'D Y-m-d H:i:s')} {slot.astimezone(zone):%Z}",
                            slot <= now,
                        )
                        for slot in slots
                    ],
                }
        return render_to_string("pgq/admin/firings.html", context)

    @admin.display(description=gettext_lazy("next firings"))
    def firings(self, row: Any) -> Any:
        address = display.url(self.admin_site, Schedule, "preview", **({"id": row.pk} if row.pk else {}))
        inner = self._firings(row)
        return render_to_string("pgq/admin/firings_panel.html", {"inner": inner, "address": address})
