"""The parts that pages are made of: HTML that is escaped, needs no script and no inline style."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import dateformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from pgq.admin import display
from pgq.recurrence import moments

CURRENT = mark_safe(' aria-current="true"')  # a constant


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a page, with its heading."""

    title: Any
    body: Any
    #: What is said under the heading.
    note: Any = ""
    #: Beside the heading: (label, address).
    links: Sequence[tuple[Any, str]] = ()
    #: "half": two stand beside each other where there is room.
    size: str = ""

    @property
    def key(self) -> str:
        """A name for its id in the page."""
        return "".join(char if char.isascii() and char.isalnum() else "-" for char in str(self.title).lower())


def ago(seconds: float | None) -> str:
    """Return a length of time in few letters: ``0.4 s``, ``12 s``, ``5 min``, ``3 h``, ``2 d``; "-": there is none."""
    if seconds is None:
        return display.EMPTY
    seconds = max(float(seconds), 0.0)
    if seconds < 0.0995:
        return _("%s ms") % f"{1000 * seconds:.{0 if seconds >= 0.0095 else 1}f}"
    if seconds < 90:
        return _("%s s") % f"{seconds:.{0 if seconds >= 9.95 else 1}f}"
    if seconds < 5400:
        return _("%s min") % f"{seconds / 60:.0f}"
    if seconds < 129_600:
        return _("%s h") % f"{seconds / 3600:.1f}"
    return _("%s d") % f"{seconds / 86400:.0f}"


def weekday(moment: datetime) -> str:
    """Return a moment of the coming days in few letters: ``Mon 14:05``."""
    return dateformat.format(moment, "D H:i:s" if moment.second else "D H:i")


def when(value: datetime | None, now: datetime | None = None) -> Any:
    """Show a moment: in the current zone, and how far from now it is."""
    if value is None:
        return display.EMPTY
    moment = display.moment(value)
    # Without USE_TZ some moments come naive, and some aware.
    reference = moments.now() if now is None else moments.aware(now)
    distance = (moments.aware(value) - reference).total_seconds()
    words = _("in %s") % ago(distance) if distance > 0 else _("%s ago") % ago(-distance)
    return format_html('{} <span class="pgq-quiet">{}</span>', moment, words)


def table(
    headings: Sequence[Any], rows: Iterable[Sequence[Any]], *, empty: Any = "", numbers: Iterable[int] = ()
) -> Any:
    """Show a table, whose rows become cards on a narrow screen.

    Args:
        empty: What is said if there are no rows.
        numbers: The columns, from 0 on, that hold numbers.
    """
    right = set(numbers)
    classes = ["pgq-number" if place in right else "" for place in range(len(headings))]
    body = format_html_join(
        "",
        "<tr>{}</tr>",
        (
            (
                format_html_join(
                    "",
                    '<td data-label="{}" class="{}">{}</td>',
                    ((heading, kind, cell) for heading, kind, cell in zip(headings, classes, row, strict=True)),
                ),
            )
            for row in rows
        ),
    )
    if not body:
        return format_html('<p class="pgq-quiet">{}</p>', empty or _("There is nothing."))
    head = format_html_join(
        "",
        '<th scope="col" class="{}">{}</th>',
        ((kind, heading) for heading, kind in zip(headings, classes, strict=True)),
    )
    return format_html(
        '<div class="pgq-scroll"><table class="pgq-list"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        head,
        body,
    )


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that is seen from afar."""

    label: Any
    value: Any
    #: Under it.
    note: Any = ""
    link: str = ""
    #: "", "bad" or "warn".
    mood: str = ""


def tiles(items: Iterable[Tile]) -> SafeString:
    return format_html(
        '<ul class="pgq-tiles">{}</ul>',
        format_html_join(
            "",
            '<li class="pgq-tile pgq-{}">{}<span class="pgq-quiet">{}</span></li>',
            (
                (
                    tile.mood or "calm",
                    format_html(
                        '<a href="{}"><span class="pgq-label">{}</span> <strong>{}</strong></a>'
                        if tile.link
                        else '<span class="pgq-of"><span class="pgq-label">{1}</span> <strong>{2}</strong></span>',
                        tile.link,
                        tile.label,
                        tile.value,
                    ),
                    tile.note,
                )
                for tile in items
            ),
        ),
    )


def facts(pairs: Iterable[tuple[Any, Any]]) -> SafeString:
    """Show names and values."""
    return format_html(
        '<dl class="pgq-facts">{}</dl>',
        format_html_join("", "<div><dt>{}</dt><dd>{}</dd></div>", pairs),
    )


def code(text: str | None) -> Any:
    """Show a text as it is, wrapped, the start of a long one."""
    return display.block((text or "")[: display.PREVIEW], "")


def meter(part: float, whole: float, words: str) -> SafeString:
    """Show a share, in words and as a bar."""
    share = min(max(part / whole, 0.0), 1.0) if whole else 0.0
    return format_html(
        '<span class="pgq-progress"><progress max="1" value="{}" aria-label="{}"></progress> <span>{}</span></span>',
        f"{share:.4f}",
        words,
        words,
    )


def join(*parts: Any) -> SafeString:
    """Put parts one after the other."""
    return format_html_join("", "{}", ((part,) for part in parts if part))


def more(address: str, text: Any) -> SafeString:
    return format_html('<p class="pgq-pages"><a rel="next" href="{}">{}</a></p>', address, text)


def tasks_in_words(number: int) -> str:
    return ngettext("%s task", "%s tasks", number) % f"{number:,}"


def chosen(options: Mapping[str, Any], selected: str, address: Any) -> SafeString:
    """Show links of which one is chosen."""
    return format_html(
        '<ul class="pgq-tabs">{}</ul>',
        format_html_join(
            "",
            '<li><a href="{}"{}>{}</a></li>',
            ((address(key), CURRENT if key == selected else "", label) for key, label in options.items()),
        ),
    )
