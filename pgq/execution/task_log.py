"""The logger of a task's context: its lines go to the logger ``pgq.task``, and are kept with the task."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from pgq.codec import clean_text, failures
from pgq.records import Claim

if TYPE_CHECKING:
    _LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:
    _LoggerAdapter = logging.LoggerAdapter

#: Where the lines of all tasks go, besides being kept.
logger = logging.getLogger("pgq.task")
#: Characters that are kept of a line.
_LIMIT = 4_000


class TaskLog(_LoggerAdapter):
    """The logger of one attempt: a LoggerAdapter of ``pgq.task``, with ``task_id`` and ``attempt`` in each record.

    Args:
        keep: Is given the level and the text of each line that is kept.
    """

    def __init__(self, claim: Claim, keep: Callable[[int, str], None]) -> None:
        super().__init__(logger, {"task_id": claim.id.hex, "attempt": claim.attempts})
        self._keep = keep

    def isEnabledFor(self, level: int) -> bool:
        """Whether lines of that level are kept."""
        return level >= logging.INFO or self.logger.isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Keep a line, and pass it on if ``pgq.task`` takes that level. What does not fit a format is kept as it is.

        Raises:
            TypeError: The level is no int.
        """
        if not isinstance(level, int):
            raise TypeError(f"log: level must be an int, such as logging.INFO, got {shown(level)}")
        if not self.isEnabledFor(level):
            return
        self._keep(level, _message(msg, args, kwargs.get("exc_info")))
        if self.logger.isEnabledFor(level):
            # The record's place is the caller's, not this line.
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            msg, options = self.process(msg, kwargs)
            self.logger.log(level, msg, *args, **options)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add to each record what task it is of; what the caller gives as `extra` stays."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def _message(msg: object, args: Sequence[Any], exc_info: Any) -> str:
    """Return a line's text: with its arguments, as logging does it, and with the traceback of what was raised."""
    try:
        text = str(msg)
        if args:
            text %= args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else tuple(args)
    except Exception as error:
        text = f"{shown(msg)} with {shown(args)} ({type(error).__name__}: {shown(error)})"
    raised = _raised(exc_info)
    if raised is not None:
        text = f"{text}\n{failures.describe(raised).traceback.rstrip()}"
    return clean_text(text, _LIMIT)


def _raised(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1] if len(exc_info) > 1 else None
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def shown(value: object) -> str:
    """Return a value as an error message shows it, whatever its methods do."""
    try:
        return repr(value)[:100]
    except Exception:  # an int with more digits than Python prints, or a __repr__ that raises
        return f"a value of type {type(value).__name__}"
