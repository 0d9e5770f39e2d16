"""How stored values look in the admin: escaped, cut, with secrets masked; nothing is imported, loaded or unpickled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pprint import pformat
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq import codec
from pgq.admin import databases
from pgq.codec import signing
from pgq.codec.failures import path_of
from pgq.codec.stored import stored_text
from pgq.errors import TaskCancelled
from pgq.ground import ids
from pgq.models import Progress, QueuedTask, Task
from pgq.status.values import MASK, hidden_text, is_sensitive, masked

#: Characters of a value that a page shows; the rest is a click away.
PREVIEW = 10_000
#: Characters up to which a value is laid out over several lines, which takes long for large ones.
_LAID_OUT = 20_000
#: Characters of a cell in a list.
CELL = 100
#: What a task ended with that was cancelled, and did not fail by itself.
CANCELLED = path_of(TaskCancelled)
_STATES = {
    "ready": gettext_lazy("ready"),
    "waiting": gettext_lazy("waiting"),
    "running": gettext_lazy("running"),
    "parked": gettext_lazy("parked"),
    "cancelled": gettext_lazy("cancelled"),
    "succeeded": gettext_lazy("succeeded"),
    "failed": gettext_lazy("failed"),
    "suspended": gettext_lazy("suspended"),
    "unknown": gettext_lazy("unknown"),
    "idle": gettext_lazy("idle"),
    "working": gettext_lazy("working"),
    "starting": gettext_lazy("starting"),
    "stopping": gettext_lazy("stopping"),
    "stopped": gettext_lazy("stopped"),
    "active": gettext_lazy("active"),
    "paused": gettext_lazy("paused"),
    "ended": gettext_lazy("ended"),
}
#: What is not shown reads like this everywhere in the admin.
EMPTY = "-"

#: A text of JSON, its end included or not: each is taken as a whole, so the search never begins inside of one, where
#: each escaped quote would be another beginning.
_JSON_TEXT = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
#: A text, and what follows it as its value, or as the second of a pair: a text, a number or word, or all to the end.
_MEMBER = re.compile(rf'({_JSON_TEXT})(?:(\s*[:,]\s*)(?:({_JSON_TEXT})|([^\s"\[\]{{}},]++)|([\[{{].*)))?', re.DOTALL)


def _masked_text(text: str, hidden: re.Pattern[str]) -> str:
    """The same for JSON that cannot be decoded. Where the end of a hidden value cannot be found, nothing follows it."""
    parts: list[str] = []
    place = 0
    while (member := _MEMBER.search(text, place)) is not None:
        parts.append(text[place : member.start()])
        if member[2] is None:
            parts.append(member[1])
            place = member.end()
        elif not hidden.search(member[1]):
            # What follows may be a name itself.
            parts.append(text[member.start() : member.end(2)])
            place = member.end(2)
        else:
            parts.append(f'{member[1]}{member[2]}"{MASK}"')
            place = member.end()
    return "".join(parts) + text[place:]


def readable(decode: Callable[[], Any], stored: str, hidden: re.Pattern[str]) -> str:
    """Return a stored value as Python would write it, a text as it is; what cannot be decoded as the JSON it is."""
    try:
        value = masked(decode(), hidden)
        if value == stored:  # decode_for_display gives back what is not JSON that Python can read
            return _masked_text(stored, hidden)
        return value if isinstance(value, str) else _laid_out(value)
    # Nested too deep, or an int with more digits than Python prints: whatever a hand-made row holds, the page opens.
    except (RecursionError, ValueError):
        return _masked_text(stored, hidden)


def _laid_out(value: Any) -> str:
    text = repr(value)
    return pformat(value, width=100, sort_dicts=False) if CELL < len(text) <= _LAID_OUT else text


def arguments_of(row: Model) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what decodes the args and the kwargs of a row for display."""
    args, kwargs = stored_text(row, "args") or "[]", stored_text(row, "kwargs") or "{}"

    def both() -> tuple[Any, Any]:
        return codec.decode_args_for_display(args, kwargs)

    def decode_args() -> Any:
        found = both()[0]
        return tuple(found) if isinstance(found, list) else found

    return decode_args, lambda: both()[1]


def stored_value(row: Model, field: str, hidden: re.Pattern[str]) -> str | None:
    """Return a stored field of a row as a text for people; None if there is nothing."""
    text = stored_text(row, field)
    if text is None:
        return None
    if is_sensitive(row):
        return hidden_text(text)
    if field in ("args", "kwargs"):
        return readable(arguments_of(row)[field == "kwargs"], text, hidden)
    if field == "value":
        # Whether the seal is good does not matter: nothing that needs trust is done with what it holds.
        text, _ = signing.unseal(UUID(str(row.pk)), text)
    return readable(lambda: codec.decode_for_display(text), text, hidden)


def block(text: str | None, more_url: str) -> SafeString | str:
    """Show a text in a monospaced, wrapped block; the start of a long one, with a link to the whole."""
    if not text:
        return EMPTY
    shown = format_html('<pre class="pgq-value">{}</pre>', text[:PREVIEW])
    if len(text) <= PREVIEW:
        return shown
    words = _("Show all %s characters") % f"{len(text):,}"
    return format_html('{}<a class="pgq-more" href="{}">{}</a>', shown, more_url, words)


def cut(text: str | None, length: int = CELL) -> str:
    """Return the start of a text, for a cell of a list."""
    if not text:
        return EMPTY
    return text if len(text) <= length else text[: length - 1] + "…"


def plain(value: Any) -> str:
    """Return what stands in a report or a history as a text; it may hold anything."""
    try:
        return EMPTY if value is None else str(value)
    except (RecursionError, ValueError):  # an int with more digits than Python prints
        return "?"


def moment(value: datetime | None) -> SafeString | str:
    """Show a time to the second, in the current time zone."""
    if value is None:
        return EMPTY
    try:
        local = timezone.localtime(value) if timezone.is_aware(value) else value
    except OverflowError:  # at the ends of the calendar
        local = value
    # In two pieces: in a narrow list the date would be broken at its hyphens.
    return format_html(
        '<time class="pgq-time" datetime="{}"><span>{}</span> <span>{}</span></time>',
        value.isoformat(),
        f"{local:%Y-%m-%d}",
        f"{local:%H:%M:%S}",
    )


def served(queues: Sequence[Any] | None, excluded: Sequence[Any]) -> str:
    """Say which queues a pool serves."""
    only = _("all") if queues is None else cut(", ".join(map(str, queues)), 200)
    if not excluded:
        return only
    return _("%(served)s but %(excluded)s") % {"served": only, "excluded": cut(", ".join(map(str, excluded)), 200)}


def func_path(path: str) -> SafeString:
    """Show the path of a function so that it breaks, if it must, after a dot."""
    *parents, last = cut(path).split(".")
    return format_html("{}{}", format_html_join("", "{}.<wbr>", ((part,) for part in parents)), last)


def badge(state: str, label: Any = None) -> SafeString:
    """Show a state: in words, and besides in colour."""
    return format_html('<span class="pgq-state pgq-state-{}">{}</span>', state, label or state_word(state))


def state_word(state: str) -> Any:
    """Return the state of a task, a worker, a pool or a schedule as it is shown; another text as it is."""
    return _STATES.get(state, state)


def state_of(row: QueuedTask | Task) -> str:
    """Return ready, waiting, running, parked, cancelled, succeeded or failed."""
    if isinstance(row, QueuedTask):
        return "cancelled" if row.cancelled else row.state
    return "succeeded" if row.success else "cancelled" if row.exception == CANCELLED else "failed"


def state_badge(state: str, label: Any = None) -> SafeString:
    """Show the state of a task, by other words if they are given."""
    return badge({"failed": "parked", "succeeded": "idle"}.get(state, state), label or state_word(state))


def url(site: admin.AdminSite, model: type[Model], view: str, *args: Any, **query: Any) -> str | None:
    """Return the address of an admin page; None if the model has none on this site."""
    name = f"{site.name}:{model._meta.app_label}_{model._meta.model_name}_{view}"
    try:
        found = reverse(name, args=[quote(str(arg)) for arg in args])
    except NoReverseMatch:
        return None
    query |= databases.query(view)
    return f"{found}?{urlencode(query)}" if query else found


def link(address: str | None, text: Any) -> SafeString | str:
    """Show a text as a link, if there is an address."""
    return format_html('<a href="{}">{}</a>', address, text) if address else str(text)


def named(name: str | None, id: str) -> str:
    """Return the name of a task."""
    return name or ids.task_name(UUID(id))


def number(value: float) -> str:
    """Return a number of a progress as a text: whole ones without a fraction."""
    return f"{value:,.0f}" if abs(value) < 1e15 and value == int(value) else f"{value:,.10g}"


def bar(said: Progress) -> SafeString | str:
    """Show how far a task is: in numbers, and as a bar if its end is known."""
    if said.done is None:
        return EMPTY
    if said.total is None:
        return number(said.done)
    words = f"{number(said.done)} / {number(said.total)}"
    if said.fraction is None:
        return words
    return format_html(
        '<span class="pgq-progress"><progress max="1" value="{0}" aria-label="{1}"></progress> '
        "<span>{2} %</span> <span>({1})</span></span>",
        f"{said.fraction:.4f}",
        words,
        f"{100 * said.fraction:.0f}",
    )


def log_text(stored: str) -> str:
    """Return the log lines of a task as a text, the last one first. The column may hold anything."""
    lines = codec.decode_for_display(stored)
    if not isinstance(lines, list):
        return plain(lines)
    return "\n".join(_line(line) for line in lines[::-1])


def _line(line: Any) -> str:
    if not isinstance(line, Mapping):
        return plain(line)
    at, level, attempt, message = (plain(line.get(key)) for key in ("at", "level", "attempt", "message"))
    return f"{at[:23].replace('T', ' ')} {level} ({attempt}) {message}"


def table(headings: Iterable[Any], rows: Iterable[Iterable[Any]]) -> SafeString:
    """Show a small table."""
    head = format_html_join("", '<th scope="col">{}</th>', ((heading,) for heading in headings))
    body = format_html_join(
        "", "<tr>{}</tr>", ((format_html_join("", "<td>{}</td>", ((cell,) for cell in row)),) for row in rows)
    )
    return format_html('<table class="pgq-table"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>', head, body)


def history(entries: Any) -> SafeString | str:
    """Show what went wrong in earlier attempts, the last one first. The entries may hold anything."""
    if not isinstance(entries, list) or not entries:
        return EMPTY
    return format_html(
        '<ul class="pgq-history">{}</ul>', format_html_join("", "<li>{}</li>", map(_attempt, entries[::-1]))
    )


def _attempt(entry: Any) -> tuple[SafeString]:
    if not isinstance(entry, Mapping):
        return (format_html('<pre class="pgq-value">{}</pre>', cut(plain(entry), 1000)),)
    shown = {key: cut(plain(entry.get(key)), PREVIEW) for key in _ATTEMPT}
    return (
        format_html(
            '<details><summary>{}: <strong>{}</strong> {}</summary><p>{}</p><pre class="pgq-value">{}</pre></details>',
            _("Attempt %(attempt)s, %(at)s") % {"attempt": shown["attempt"], "at": shown["at"][:19].replace("T", " ")},
            shown["exception"],
            cut(shown["message"], 200),
            _("worker %s") % shown["worker"],
            shown["traceback"],
        ),
    )


_ATTEMPT = ("attempt", "at", "exception", "message", "worker", "traceback")
