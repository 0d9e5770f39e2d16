"""The log of a pool's processes."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from pgq.conf import get_settings

#: One event is one line, whatever a task put into its message: of the controls only tab and line feed (see `format`)
#: stay as they are. Line separators and bidi controls are escaped too.
_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(9), *range(11, 32), *range(127, 0xA0))} | {
    number: f"\\u{number:04x}" for number in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class PlainFormatter(logging.Formatter):
    """Lines for people: time, level, process, message; a traceback is indented below."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        head = f"{time:%H:%M:%S}.{time.microsecond // 1000:03d} {record.levelname:<7} {record.process:>7} "
        text = (_whose(record) + record.getMessage()).translate(_ESCAPES).replace("\n", "\\n")
        if record.exc_info:
            text += "\n" + _exception(self, record).translate(_ESCAPES)
        return head + text.replace("\n", "\n    ")


def _whose(record: logging.LogRecord) -> str:
    """Return which task a line of its context's logger is of."""
    return f"task {getattr(record, 'task_id', '?')}: " if record.name == "pgq.task" else ""


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """As in `logging`: an exception that another handler has formatted already is not formatted again."""
    assert record.exc_info is not None
    return record.exc_text or formatter.formatException(record.exc_info)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.name == "pgq.task":
            entry["task"] = str(getattr(record, "task_id", "?"))
        if record.exc_info:
            entry["exception"] = _exception(self, record)
        return json.dumps(entry)


def set_up_logging(format: str | None, level: str | None) -> None:
    """Set up the logger "pgq": by the command line, else by the project's LOGGING, else with a handler of its own.

    Args:
        format: "plain" or "json", if given on the command line: then the lines go to stderr, in place of the handlers
            of the root logger. A logger "pgq" with handlers of its own keeps those.
        level: If given on the command line; None: that of LOGGING, or PGQ["log_level"].
    """
    logger = logging.getLogger("pgq")
    # If pgq was imported before LOGGING took effect, disable_existing_loggers has disabled it, which is never meant.
    logger.disabled = False
    if level is not None or logger.level == logging.NOTSET:
        logger.setLevel(level or get_settings().log_level)
    if logger.handlers or (format is None and (logger.hasHandlers() or not logger.propagate)):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if format == "json" else PlainFormatter())
    logger.addHandler(handler)
    logger.propagate = False
