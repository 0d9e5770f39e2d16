"""One request for one page: who asks, what for, and the look at the tables that answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from pgq.admin import display
from pgq.admin.dashboard.look import Look, Seen
from pgq.admin.dashboard.widgets import Block
from pgq.models import Dashboard
from pgq.store.connection import Cursor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Visit:
    """What the builder of a page is given."""

    site: admin.AdminSite
    request: HttpRequest
    look: Look
    #: Of PGQ["database"].
    alias: str

    def may(self, codename: str) -> bool:
        """Whether the user has that permission of pgq's."""
        return self.request.user.has_perm(f"pgq.{codename}")

    def asked(self, name: str) -> str:
        """Return a word of the address; no text of PostgreSQL holds a NUL."""
        return self.request.GET.get(name, "").replace("\0", "").strip()

    def address(self, page: str, /, *args: Any, **query: Any) -> str:
        """Return the address of a page of the dashboard."""
        return display.url(self.site, Dashboard, page, *args, **query) or ""

    def link(self, text: Any, page: str, /, *args: Any, **query: Any) -> Any:
        return display.link(self.address(page, *args, **query), text)

    def task(self, id: Any, name: str | None = None) -> Any:
        """Show a task as a link to its page: by its name, or else the words of its id."""
        hex = UUID(str(id)).hex
        return self.link(display.cut(display.named(name, hex), 60), "task", hex)

    def func(self, path: str) -> Any:
        return self.link(display.func_path(path), "function", path)

    def queue(self, name: str) -> Any:
        return self.link(display.cut(name, 40), "queue", name)

    def block(
        self, title: Any, read: Callable[[Cursor], T], show: Callable[[T], Any], *, name: str = "", **options: Any
    ) -> Block:
        """Return a part of a page: what was read, shown; or why it could not be read."""
        return self.shown(title, self.look(name or str(title), read), show, **options)

    def shown(self, title: Any, seen: Seen[T], show: Callable[[T], Any], **options: Any) -> Block:
        if seen.fault is not None:
            return Block(title, fault(seen.fault), **options)
        return Block(title, show(seen.value), **options)  # type: ignore[arg-type]  # without a fault there is a value


def fault(text: str) -> SafeString:
    return format_html('<p class="pgq-fault">{}</p>', text)
