"""Texts and tables for the terminal, at the width that there is."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pgq.ground.private import raw_stream

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text


T = TypeVar("T")

#: Columns of output that goes to no terminal: enough to cut nothing that is not cut on purpose.
_PIPE_WIDTH = 400
#: Between two columns of a table; and how narrow a column of texts may get.
_GAP, _NARROWEST = 2, 4

# ------------------------------------------------------------------------------------------------- words and numbers

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(value: object, limit: int | None = None) -> str:
    """Return a text with all that a terminal would obey, or hide, made visible: ``\\x1b``, ``\\u202e``, ``\\n``.

    Names come from all who can write to the tables.

    Args:
        limit: Characters; a longer text is cut.
    """
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else _escape(char) for char in text)


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def span(seconds: float | None) -> str:
    """Return a length of time in words: ``0.35 s``, ``12 s``, ``5 min``, ``3 h 10 min``, ``2 d 3 h``."""
    if seconds is None:
        return ""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def clock(seconds: float) -> str:
    """Return a length of time as Django-Q shows it: ``1:02:03``."""
    return str(timedelta(seconds=int(max(seconds, 0))))


def rate(value: float | None) -> str:
    """Return a number a second, with as many digits as it deserves."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}"


# ------------------------------------------------------------------------------------------------- output


def is_plain(options: Mapping[str, Any]) -> bool:
    """Whether no colours are wanted, by option or by environment."""
    return bool(options.get("no_color") or os.environ.get("DJANGO_COLORS") == "nocolor" or os.environ.get("NO_COLOR"))


def console(stdout: Any, options: Mapping[str, Any]) -> Console:
    """Return a console on a command's stdout.

    Markup and emoji codes are off: a queue called ``[default]`` is to be seen as such.
    """
    from rich.console import Console

    # A newline after each write would break a screen that is drawn in pieces.
    stream = raw_stream(stdout)
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    colors: Any = None if is_plain(options) else "standard" if options.get("force_color") else "auto"
    made = Console(
        file=stream,
        force_terminal=True if options.get("force_color") and colors else None,
        color_system=colors,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if terminal else _width_of_pipe(),
        safe_box=True,
    )
    # Rich reads the environment, too; Live only makes sense on a real terminal.
    made.is_interactive = terminal and made.is_interactive and not made.is_dumb_terminal
    return made


def _width_of_pipe() -> int:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isascii() and columns.isdigit() and int(columns) > 0 else _PIPE_WIDTH


def emit(out: Console, *renderables: RenderableType) -> None:
    """Print; outside a terminal without the blanks that fill up lines, and in the stream's own encoding."""
    if out.is_terminal:
        out.print(*renderables, sep="\n")
        return
    with out.capture() as captured:
        out.print(*renderables, sep="\n")
    text = "".join(line.rstrip() + "\n" for line in captured.get().splitlines())
    encoding = getattr(out.file, "encoding", None) or "utf-8"
    out.file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    out.file.flush()


def text(value: object, style: str = "", limit: int | None = None) -> Text:
    """Return a text for a cell, harmless and on one line."""
    from rich.text import Text

    return Text(visible(value, limit), style=style, no_wrap=True, overflow="ellipsis")


def message(value: object, style: str = "") -> Text:
    """Return a text that is to be read to its end: it is wrapped where it does not fit."""
    made = text(value, style)
    made.no_wrap, made.overflow = False, "fold"
    return made


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    #: Shown if the console is at least so wide.
    from_width: int = 0
    style: str = ""


def table(out: Console, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table without lines, with the columns for which there is room; cells are texts or anything to show."""
    from rich.table import Table
    from rich.text import Text

    shown = [index for index, column in enumerate(columns) if out.width >= column.from_width]
    cells = [[cell if isinstance(cell := row[index], Text) else text(cell) for index in shown] for row in rows]
    widths = _widths(out, [columns[index] for index in shown], cells)
    made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for index, width in zip(shown, widths, strict=True):
        column = columns[index]
        made.add_column(
            text(column.title),
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            style=column.style,
            width=width,
        )
    for line in cells:
        made.add_row(*line)
    return made


def _widths(out: Console, columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> list[int]:
    """Return how wide the columns are: so wide as they need, or the texts less, the widest first.

    Numbers and times are short, and mean something else without their end.
    """
    widths = [max([len(column.title), *(row[index].cell_len for row in cells)]) for index, column in enumerate(columns)]
    texts = [index for index, column in enumerate(columns) if not column.right]
    for _ in range(sum(widths) + _GAP * (len(columns) - 1) - out.width):
        widest = max(texts, key=lambda index: widths[index], default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    return widths


STATE_STYLES = {
    "Working": "green",
    "Idle": "cyan",
    "Starting": "yellow",
    "Stopping": "yellow",
    "Stopped": "red",
    "Silent": "red",
}


def state(name: str) -> Text:
    """Return the state of a pool, in its colour."""
    return text(name, STATE_STYLES.get(name, ""))
