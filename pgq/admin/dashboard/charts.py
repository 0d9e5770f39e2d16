"""Charts, drawn here as SVG: no script, no inline style, each with its numbers as words or as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from pgq.admin.dashboard import widgets

#: Of a chart, in units of its own; it is as wide as its place.
WIDTH, HEIGHT = 600, 120


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: how high, of which kind ("good", "bad", "plain"), and what is said of it."""

    value: float
    kind: str
    words: str


def spark(bars: Sequence[Bar], label: str, *, width: int = 180, height: int = 24) -> SafeString | str:
    """Draw small bars in a row of a table."""
    if not bars:
        return ""
    step = width / max(len(bars), 1)
    top = max((bar.value for bar in bars), default=0.0) or 1.0
    drawn = format_html_join(
        "",
        '<rect class="pgq-bar-{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        (_rect(bar, place, step, top, height) for place, bar in enumerate(bars)),
    )
    return format_html(
        '<svg class="pgq-spark" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>',
        width,
        height,
        width,
        height,
        label,
        drawn,
    )


def _rect(bar: Bar, place: int, step: float, top: float, height: int) -> tuple[Any, ...]:
    # At least 2 units, so that what took no time is seen, too.
    tall = max(height * bar.value / top, 2.0)
    return (
        bar.kind,
        f"{place * step:.1f}",
        f"{height - tall:.1f}",
        f"{max(step - 1, 0.5):.1f}",
        f"{tall:.1f}",
        bar.words,
    )


@dataclass(frozen=True, slots=True)
class Series:
    """A line or an area over time: a value for each point; None: nothing is known there."""

    name: str
    kind: str
    values: Sequence[float | None]


def lines(
    title: str,
    moments: Sequence[str],
    series: Sequence[Series],
    *,
    unit: str = "",
    marks: Iterable[tuple[int, str]] = (),
) -> SafeString:
    """Draw series as lines over the same points in time, with a table of the same numbers.

    Args:
        moments: A label for each point.
        unit: Of the values, said beside the highest.
        marks: Place and label of vertical lines.
    """
    count = max(len(moments), 1)
    top = max((value for one in series for value in one.values if value is not None), default=0.0) or 1.0
    across = WIDTH / max(count - 1, 1)

    def points(one: Series) -> str:
        # Each is a little line: a value beside which nothing is known would not be seen.
        known = [(place, value) for place, value in enumerate(one.values) if value is not None]
        found = [(place * across, HEIGHT - HEIGHT * value / top) for place, value in known]
        return " ".join(f"{x:.1f},{y:.1f} {x + 1:.1f},{y:.1f}" for x, y in found)

    drawn = format_html_join(
        "",
        '<polyline class="pgq-line pgq-line-{}" points="{}"><title>{}</title></polyline>',
        ((one.kind, points(one), one.name) for one in series),
    )
    marked = format_html_join(
        "",
        '<line class="pgq-mark" x1="{0}" x2="{0}" y1="0" y2="{1}"><title>{2}</title></line>',
        ((f"{place * across:.1f}", HEIGHT, label) for place, label in marks),
    )
    legend = format_html_join("", '<li class="pgq-key pgq-key-{}">{}</li>', ((one.kind, one.name) for one in series))
    headings = (_("time"), *(one.name for one in series))
    rows = [(moment, *(_number(one.values[place]) for one in series)) for place, moment in enumerate(moments)]
    words = _("%(title)s, from %(first)s to %(last)s, at most %(top)s %(unit)s") % {
        "title": title,
        "first": moments[0] if moments else "",
        "last": moments[-1] if moments else "",
        "top": _number(top),
        "unit": unit,
    }
    return format_html(
        '<figure class="pgq-chart"><div class="pgq-top">{} {}</div>'
        '<svg viewBox="0 -4 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>'
        '<div class="pgq-ends"><span>{}</span><span>{}</span></div><ul class="pgq-legend">{}</ul>'
        '<details data-keep="{}"><summary>{}</summary>{}</details></figure>',
        _number(top),
        unit,
        WIDTH,
        HEIGHT + 8,
        words,
        marked,
        drawn,
        moments[0] if moments else "",
        moments[-1] if moments else "",
        legend,
        title,
        _("The numbers"),
        widgets.table(headings, rows[::-1], numbers=range(1, len(headings))),
    )


def beside(*figures: Any) -> SafeString:
    """Put charts beside each other, where there is room."""
    return format_html('<div class="pgq-figures">{}</div>', widgets.join(*figures))


def columns(title: str, bars: Sequence[tuple[str, float, str]], *, unit: str = "") -> SafeString:
    """Draw a histogram: label, height and kind of each column; with a table of the same numbers."""
    top = max((value for _label, value, _kind in bars), default=0.0) or 1.0
    step = WIDTH / max(len(bars), 1)
    drawn = format_html_join(
        "",
        '<rect class="pgq-bar-{}" x="{}" y="{}" width="{}" height="{}"><title>{}: {} {}</title></rect>',
        (
            (
                kind,
                f"{place * step + 0.5:.1f}",
                f"{HEIGHT - HEIGHT * value / top:.1f}",
                f"{max(step - 1, 0.5):.1f}",
                f"{HEIGHT * value / top:.1f}",
                label,
                _number(value),
                unit,
            )
            for place, (label, value, kind) in enumerate(bars)
        ),
    )
    words = _("%(title)s: %(count)d columns, the highest %(top)s %(unit)s") % {
        "title": title,
        "count": len(bars),
        "top": _number(top),
        "unit": unit,
    }
    rows = [(label, _number(value)) for label, value, _kind in bars]
    return format_html(
        '<figure class="pgq-chart"><div class="pgq-top">{} {}</div>'
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
        '<div class="pgq-ends"><span>{}</span><span>{}</span></div>'
        '<details data-keep="{}"><summary>{}</summary>{}</details></figure>',
        _number(top),
        unit,
        WIDTH,
        HEIGHT,
        words,
        drawn,
        bars[0][0] if bars else "",
        bars[-1][0] if bars else "",
        title,
        _("The numbers"),
        widgets.table(("", unit or _("number")), rows, numbers=(1,)),
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
