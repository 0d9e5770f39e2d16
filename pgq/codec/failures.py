"""What is stored of an exception: a `Failure`, and the entry of a task's history that it becomes."""

from __future__ import annotations

import dataclasses
import json
import os
import traceback
from types import TracebackType

import pgq
from pgq import codec
from pgq.records import Failure

#: Characters that are kept.
MESSAGE_LIMIT, _TRACEBACK_LIMIT, _PATH_LIMIT = 10_000, 100_000, 500
#: The folder of this package.
_PACKAGE = os.path.join(os.path.dirname(pgq.__file__), "")


def path_of(kind: type[BaseException]) -> str:
    """Return the path by which an exception's class is stored, and named in `retry_on`."""
    return f"{kind.__module__}.{kind.__qualname__}"


def describe(error: BaseException) -> Failure:
    """Make an exception storable: bounded, without NUL or surrogates, even if its own methods raise."""
    kind = type(error)
    try:
        text = "".join(traceback.format_exception(kind, error, users_part(error.__traceback__)))
    except BaseException as inner:
        text = f"<the traceback could not be formatted: {type(inner).__name__}>"
    return _failure(error, text)


def without_traceback(error: BaseException) -> Failure:
    """Do the same for an error that pgq makes itself, without its traceback, which would show nothing but pgq."""
    return _failure(error, "")


def _failure(error: BaseException, text: str) -> Failure:
    kind = type(error)
    try:
        message = str(error)
    except BaseException as inner:
        message = f"<{kind.__name__}.__str__ raised {type(inner).__name__}>"
    return Failure(
        exception=codec.clean_text(path_of(kind), _PATH_LIMIT),
        message=codec.clean_text(message, MESSAGE_LIMIT),
        traceback=codec.clean_text(text, _TRACEBACK_LIMIT),
    )


def users_part(tb: TracebackType | None) -> TracebackType | None:
    """Return a traceback without pgq's own frames at its beginning."""
    part = tb
    while part is not None and part.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        part = part.tb_next
    return part or tb


def as_json(failure: Failure, **more: int) -> str:
    """Return a failure as an entry of a task's history, to which the statement adds the attempt, worker and time."""
    return codec.encode({**dataclasses.asdict(failure), **more})


def from_json(text: str) -> Failure:
    """Return the failure of an entry of a task's history."""
    entry = json.loads(text)
    return Failure(exception=entry["exception"], message=entry["message"], traceback=entry.get("traceback", ""))
