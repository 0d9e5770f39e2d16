"""How the dashboard stands in the admin: its addresses, who may see it, and how a page or a part of it is answered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

from django.conf import settings as django_settings
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.forms import Media
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, HttpResponseNotModified
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.base import PgqAdminMixin
from pgq.admin.dashboard import (
    alike,
    audit,
    doctor,
    errors,
    flows,
    functions,
    limits,
    marks,
    overview,
    queues,
    schedules,
    task,
    tasks,
    workers,
)
from pgq.admin.dashboard.acts import ACTS, Act, perform
from pgq.admin.dashboard.look import Look
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block

#: Seconds after which a page that is looked at is read anew.
REFRESH = 5


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and where it stands."""

    #: Of its address, ``admin:pgq_dashboard_NAME``.
    name: str
    route: str
    #: Returns what the page shows; the arguments are those of the route.
    build: Callable[..., Sequence[Block]]
    title: Any
    #: The letter that leads there after a "g"; "": the page is not in the list of pages.
    key: str = ""
    refresh: int = REFRESH


PAGES = (
    Page("changelist", "", overview.build, gettext_lazy("Overview"), "o"),
    Page("queues", "queues/", queues.build, gettext_lazy("Queues"), "q"),
    Page("queue", "queues/<str:name>/", queues.build_one, gettext_lazy("Queue")),
    Page("limits", "limits/", limits.build, gettext_lazy("Limits"), "l"),
    Page("functions", "functions/", functions.build, gettext_lazy("Functions"), "f", 30),
    Page("function", "functions/<str:path>/", functions.build_one, gettext_lazy("Function"), "", 30),
    Page("errors", "errors/", errors.build, gettext_lazy("Errors"), "e"),
    Page("error", "errors/<str:fingerprint>/", errors.build_one, gettext_lazy("Error")),
    Page("tasks", "tasks/", tasks.build, gettext_lazy("Tasks"), "t"),
    Page("task", "task/<str:id>/", task.build, gettext_lazy("Task")),
    Page("workers", "workers/", workers.build, gettext_lazy("Workers"), "w"),
    Page("pool", "workers/<str:id>/", workers.build_one, gettext_lazy("Pool")),
    Page("schedules", "schedules/", schedules.build, gettext_lazy("Schedules"), "s", 30),
    Page("flows", "flows/", flows.build, gettext_lazy("Groups"), "c", 30),
    Page("flow", "flows/<str:group>/", flows.build_one, gettext_lazy("Group")),
    Page("doctor", "doctor/", doctor.build, gettext_lazy("Doctor"), "d", 30),
    Page("marks", "marks/", marks.build, gettext_lazy("Marks"), "m", 30),
    Page("audit", "audit/", audit.build, gettext_lazy("Audit"), "a", 30),
)


class DashboardAdminMixin(PgqAdminMixin):
    """For `Dashboard`: a ModelAdmin without a table, so that every skin of the admin lists it."""

    actions: Any = None
    #: Add a `Page` of your own in a subclass.
    pages: ClassVar[Sequence[Page]] = PAGES
    #: What can be done, likewise.
    acts: ClassVar[Sequence[Act]] = (*ACTS, alike.RETRY_ALIKE, *limits.ACTS)

    @property
    def media(self) -> Media:
        return Media(css={"all": ["pgq/admin.css", "pgq/dashboard.css"]}, js=["pgq/dashboard.js"])

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        found = [
            path(page.route, wrap(functools.partial(self.page_view, page=page)), name=f"pgq_dashboard_{page.name}")
            for page in self.pages
        ]
        found += [
            path(act.route, wrap(functools.partial(self.act_view, act=act)), name=f"pgq_dashboard_{act.name}")
            for act in self.acts
        ]
        return found

    # --------------------------------------------------------------------------------------------- pages

    def page_view(self, request: HttpRequest, *, page: Page, **arguments: str) -> HttpResponseBase:
        """Answer with a page; with ``?fragment=1`` with the part of it that changes, or that it has not changed."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        given = {name: unquote(value) for name, value in arguments.items()}
        with Look(self.database) as look:
            visit = Visit(self.admin_site, request, look, self.database)
            blocks = page.build(visit, **given)
        context = {"blocks": blocks}
        if request.GET.get("fragment"):
            response = self._fragment(request, context)
        else:
            title = next((name for name in given.values() if name), None)
            response = TemplateResponse(
                request,
                "pgq/dashboard/page.html",
                {
                    **self._frame(request, visit, page),
                    **context,
                    "title": f"{page.title}: {title}" if title else page.title,
                },
            )
        if django_settings.DEBUG:
            parts = [
                f'part{number};desc="{_plain(name)}";dur={ms:.1f}' for number, (name, ms) in enumerate(look.timings)
            ]
            response["Server-Timing"] = ", ".join(parts)
        # Between the page and its part: the browser's Back would show the part alone.
        response["Vary"] = "Cookie"
        response["Cache-Control"] = "no-store" if not request.GET.get("fragment") else "no-cache, private"
        return response

    def _fragment(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        text = render_to_string("pgq/dashboard/live.html", context, request)
        tag = f'"{blake2b(text.encode(), digest_size=12).hexdigest()}"'
        if request.headers.get("If-None-Match") == tag:
            return HttpResponseNotModified(headers={"ETag": tag})
        return HttpResponse(text, headers={"ETag": tag})

    def _frame(self, request: HttpRequest, visit: Visit, page: Page) -> dict[str, Any]:
        """Return what stands around a page."""
        # Their templates resolve "admin:index" on this site.
        request.current_app = self.admin_site.name
        nav = [
            {"label": it.title, "address": visit.address(it.name), "key": it.key, "here": it is page}
            for it in self.pages
            if it.key
        ]
        query = request.GET.copy()
        query.pop("fragment", None)
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "pgq_nav": nav,
            "pgq_home": visit.address("changelist"),
            "pgq_search": visit.address("tasks"),
            "pgq_q": visit.asked("q"),
            "pgq_refresh": page.refresh,
            "pgq_here": f"{request.path}?{query.urlencode()}" if query else request.path,
        }

    # --------------------------------------------------------------------------------------------- acts

    def act_view(self, request: HttpRequest, *, act: Act, **arguments: str) -> HttpResponseBase:
        """Ask whether it shall be done; by POST, do it. The permission is asked for either."""
        if not self.has_view_permission(request) or not all(map(functools.partial(self.permits, request), act.needs)):
            raise PermissionDenied
        given = {name: unquote(value) for name, value in arguments.items()}
        request.current_app = self.admin_site.name
        with Look(self.database) as look:
            visit = Visit(self.admin_site, request, look, self.database)
            if request.method == "POST":
                return perform(self, visit, act, given)
            if request.method not in ("GET", "HEAD"):
                return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
            question = act.ask(visit, **given)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "pgq_home": visit.address("changelist"),
            "title": act.label,
            "label": act.label,
            "question": question.text,
            "body": question.body,
            "back": question.back,
        }
        return TemplateResponse(request, "pgq/dashboard/confirm.html", context)


def _plain(name: str) -> str:
    """Return a name that a header can hold."""
    return display.cut("".join(char if char.isascii() and char.isalnum() else "-" for char in name), 40)
