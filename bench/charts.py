"""Bar charts and lines as plain SVG. They follow the reader's light or dark theme, and say everything in text too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABELS, RIGHT = 760, 130, 90
BAR, GAP, TOP, BOTTOM = 14, 10, 58, 30
#: Of lines: what the numbers on the left take, and how high it is between the axes.
MARGIN, HEIGHT = 60, 200

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .quiet { fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .whisker { stroke: #24292f; stroke-width: 1.5 }
  .ours { fill: #0969da } .theirs { fill: #8c959f } .floor { fill: #bf8700 }
  .line { fill: none; stroke-width: 2 } .line.ours { stroke: #0969da } .line.floor { stroke: #bf8700 }
  .second { opacity: .55 } .third { opacity: .3 }
  .mine { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .grid { stroke: #3d444d } .whisker { stroke: #e6edf3 }
    .ours { fill: #4493f8 } .theirs { fill: #7d8590 } .floor { fill: #d29922 }
    .line { fill: none } .line.ours { stroke: #4493f8 } .line.floor { stroke: #d29922 }
  }
"""
_SHADES = ("", " second", " third")


class Bar(NamedTuple):
    """A value, and the lowest and highest of the rounds."""

    value: float
    low: float | None = None
    high: float | None = None


class Row(NamedTuple):
    """The bars of one system, from the first series to the last."""

    label: str
    bars: Sequence[Bar | None]


def chart(title: str, about: str, rows: Sequence[Row], *, series: Sequence[str] = (), logarithmic: bool = True) -> str:
    """Return an SVG of horizontal bars; with several series, one bar for each under the other."""
    values = [bar.high or bar.value for row in rows for bar in row.bars if bar and bar.value > 0]
    lows = [bar.low or bar.value for row in rows for bar in row.bars if bar and bar.value > 0]
    scale = _Scale(min(lows, default=1), max(values, default=1), logarithmic)
    body: list[str] = []
    y = float(TOP)
    for row in rows:
        height = BAR * len(row.bars)
        mine = " class='mine'" if row.label == "pgq" else ""
        body.append(_text(LABELS - 8, y + height / 2 + 4, row.label, mine + " text-anchor='end'"))
        for index, bar in enumerate(row.bars):
            if bar is not None:
                body += _bar(scale, y + index * BAR, bar, _color(row.label) + _SHADES[index % 3])
        y += height + GAP
    grid = [
        f"<line class='grid' x1='{scale(tick):.1f}' x2='{scale(tick):.1f}' y1='{TOP - 6}' y2='{y:.1f}'/>"
        + _text(scale(tick), y + 16, _number(tick), " class='quiet' text-anchor='middle'")
        for tick in scale.ticks()
    ]
    axis = ", logarithmic" if logarithmic else ""
    legend = f"{about}{axis}{'; from top to bottom: ' + ', '.join(series) if series else ''}"
    return _picture(title, legend, y + BOTTOM, [*grid, *body])


def lines(
    title: str,
    about: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    logarithmic: bool = True,
    over_time: bool = False,
) -> str:
    """Return an SVG of lines over a logarithmic axis, or over time; an axis that is not logarithmic begins at zero."""
    points = [point for line in series.values() for point in line]
    across = _Scale(min(x for x, _ in points), max(x for x, _ in points), not over_time, MARGIN, WIDTH - RIGHT)
    up = _Scale(min(y for _, y in points), max(y for _, y in points) * 1.1, logarithmic, TOP + HEIGHT, TOP)
    body = [
        f"<line class='grid' x1='{MARGIN}' x2='{WIDTH - RIGHT}' y1='{up(tick):.1f}' y2='{up(tick):.1f}'/>"
        + _text(MARGIN - 8, up(tick) + 4, _number(tick), " class='quiet' text-anchor='end'")
        for tick in up.ticks()
    ]
    for tick in across.ticks() if over_time else sorted({x for x, _ in points}):
        body.append(_text(across(tick), TOP + HEIGHT + 18, _number(tick), " class='quiet' text-anchor='middle'"))
    for (name, line), color in zip(series.items(), ("ours", "floor"), strict=False):
        places = [(across(x), up(y)) for x, y in line]
        body.append(f"<polyline class='line {color}' points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in places)}'/>")
        body += [f"<circle class='{color}' cx='{x:.1f}' cy='{y:.1f}' r='3'/>" for x, y in places]
        body.append(_text(places[-1][0] + 8, places[-1][1] + 4, f"{name} {_number(line[-1][1])}".strip()))
    return _picture(title, about, TOP + HEIGHT + BOTTOM, body)


def _picture(title: str, legend: str, height: float, body: Sequence[str]) -> str:
    return "\n".join(
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' "
            f"height='{height:.0f}' role='img' aria-labelledby='title desc'>",
            f"<title id='title'>{escape(title)}</title><desc id='desc'>{escape(legend)}</desc>",
            f"<style>{STYLE}</style>",
            _text(0, 18, title, " class='title'"),
            _text(0, 38, legend, " class='quiet'"),
            *body,
            "</svg>\n",
        )
    )


class _Scale:
    """From values to places, from `begin` to `end` of the picture."""

    def __init__(
        self, low: float, high: float, logarithmic: bool, begin: float = LABELS, end: float = WIDTH - RIGHT
    ) -> None:
        self.logarithmic, self.begin, self.end = logarithmic, begin, end
        self.low = 10 ** math.floor(math.log10(low)) if logarithmic else 0.0
        # Where nothing was done there is nothing to see, but a picture all the same.
        self.high = high or 1.0

    def __call__(self, value: float) -> float:
        room = self.end - self.begin
        if self.logarithmic:
            span = math.log10(self.high / self.low) or 1
            return self.begin + room * math.log10(max(value, self.low) / self.low) / span
        return self.begin + room * value / self.high

    def ticks(self) -> list[float]:
        if self.logarithmic:
            first, last = math.log10(self.low), math.log10(self.high)
            return [10.0**power for power in range(round(first), math.floor(last) + 1)]
        step = 10 ** math.floor(math.log10(self.high))
        step = step / 2 if self.high / step < 3 else step
        return [step * index for index in range(int(self.high / step) + 1)]


def _bar(scale: _Scale, y: float, bar: Bar, color: str) -> list[str]:
    end = scale(bar.value)
    # A logarithmic axis has no zero: a bar always shows at least its beginning.
    drawn = [
        f"<rect class='{color}' x='{LABELS}' y='{y + 1:.1f}' width='{max(2.0, end - LABELS):.1f}' height='{BAR - 2}'/>"
    ]
    if bar.low is not None and bar.high is not None and bar.high > bar.low:
        middle, left, right = y + BAR / 2, scale(bar.low), scale(bar.high)
        drawn.append(f"<line class='whisker' x1='{left:.1f}' x2='{right:.1f}' y1='{middle:.1f}' y2='{middle:.1f}'/>")
        end = max(end, right)
    drawn.append(_text(end + 6, y + BAR - 3, _number(bar.value)))
    return drawn


def _color(label: str) -> str:
    return "ours" if label == "pgq" else "floor" if label.startswith("floor") else "theirs"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}'{attributes}>{escape(text)}</text>"
