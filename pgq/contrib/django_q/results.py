"""Finished tasks of Django-Q: rows of pgq_task, with what can be read of their values."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from typing import Any
from uuid import UUID

from pgq import codec
from pgq.codec import Unstorable, signing
from pgq.conf import Settings
from pgq.contrib.django_q import unpickle
from pgq.contrib.django_q.plan import Plan, Row, Skip, Tally, clean, derived_id, load_trusted, moment
from pgq.errors import NotStorable
from pgq.records import NewTask
from pgq.store import django_q
from pgq.store.caller import callers_cursor

_SMALLINT = 2**15 - 1
#: How Django-Q writes a failure: the message, a colon, the traceback.
_FAILURE = re.compile(r"^(?P<message>.*?) : (?P<traceback>Traceback \(most recent call last\):.*)$", re.DOTALL)
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)")


class Results:
    """Imports the results.

    Args:
        wanted: The ids that schedules name there as their last task; what these are called here is in `new_ids`.
    """

    def __init__(self, plan: Plan, settings: Settings, wanted: Collection[str]) -> None:
        self.plan, self.settings, self.wanted = plan, settings, wanted
        self.tally = Tally()
        self.new_ids: dict[str, UUID] = {}

    def write(self, rows: list[Row]) -> None:
        """Import some of them, in the caller's transaction."""
        made = []
        for row in rows:
            try:
                result = self._result(row)
            except Skip as skip:
                self.tally.skip(f"result {row['id']} ({row.get('func')})", str(skip))
                continue
            made.append(result)
            if row["id"] in self.wanted:
                self.new_ids[row["id"]] = result["id"]
        if made:
            with callers_cursor(self.settings.database) as cursor:
                new = django_q.import_results(cursor, made)
            self.tally.imported += len(new)
            self.tally.present += len(made) - len(new)

    def _result(self, row: Row) -> Row:
        started, stopped = moment(row["started"]), moment(row["stopped"])
        if started is None or stopped is None:
            raise Skip("it has no times")
        id = derived_id("result", row["id"], started)
        func = clean(row["func"]) or "unknown"
        success = bool(row["success"])
        args, kwargs, whole = self._arguments(row)
        failure = self._failure(row["result"]) if not success else {}
        new: Row = {
            "id": id,
            "success": success,
            "attempt_count": min(max(row.get("attempt_count") or 0, 0), _SMALLINT),
            "started": started,
            "stopped": stopped,
            "func": func,
            "queue": self.plan.queue(row.get("cluster")),
            "args": args,
            "kwargs": kwargs,
            "options": codec.encode({"django_q_id": clean(row["id"])}),
            "result": self._stored_result(id, row["result"]) if success else None,
            "name": clean(row["name"]),
            "group": clean(row.get("group")),
            "hook": clean(row.get("hook")),
            "cluster": clean(row.get("cluster")),
            "exception": None,
            "message": None,
            "traceback": None,
            "signature": None,
            **failure,
        }
        if self.plan.trust_results and whole:
            # So that it can be run again.
            names = ("id", "func", "args", "kwargs", "options", "queue", "name", "group", "hook")
            new["signature"] = signing.sign_task(NewTask(**{name: new[name] for name in names}))
        return new

    def _value(self, text: Any) -> tuple[Any, list[str]]:
        """Return what picklefield stored, and what was replaced in it.

        Raises:
            Unreadable: That cannot be read.
        """
        if text is None:
            return None, []
        try:
            data = base64.b64decode(text)
        except (binascii.Error, ValueError, TypeError):
            raise unpickle.Unreadable("it is not base64") from None
        if not self.plan.trust_results:
            return unpickle.load(data)
        try:
            return load_trusted(data), []  # the operator trusts it
        except Exception as error:  # unpickling runs any code
            raise unpickle.Unreadable(f"{type(error).__name__}: {error}"[:500]) from None

    def _failure(self, text: Any) -> dict[str, str]:
        try:
            return _failure(self._value(text)[0])
        except unpickle.Unreadable as error:
            return _failure(f"<not imported: {error}>")

    def _stored_result(self, id: UUID, text: Any) -> str:
        try:
            value, refused = self._value(text)
        except unpickle.Unreadable as error:
            self._note_refused()
            value, refused = _unstorable(text, str(error)), []
        if refused:
            self._note_refused()
        stored = codec.encode_result(
            value,
            limit=self.settings.max_payload,
            allow_pickle=self.settings.allow_pickle,
            sign=signing.sign_blob if self.settings.allow_pickle else None,
        )
        return signing.seal(id, stored)

    def _note_refused(self) -> None:
        self.tally.note(
            "Some results or arguments hold objects of types that are not loaded from unsigned pickles: text stands "
            "for them. --trust-results loads them, and with them any code that may have been put there."
        )

    def _arguments(self, row: Row) -> tuple[str, str, bool]:
        """Return args and kwargs in their stored form, and whether they are what they were."""
        try:
            (args, refused), (kwargs, refused_too) = self._value(row["args"]), self._value(row["kwargs"])
            args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
            if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
                # async_iter's results have the iterable itself.
                args = (args,) if not isinstance(args, list | tuple) else args
                kwargs = kwargs if isinstance(kwargs, dict) else {}
            if refused or refused_too:
                self._note_refused()
            texts = codec.encode_args(
                tuple(args),
                {str(key): value for key, value in kwargs.items()},
                strict=False,
                allow_pickle=self.settings.allow_pickle,
                limit=self.settings.max_payload,
                sign=signing.sign_blob if self.settings.allow_pickle else None,
            )
            return *texts, not (refused or refused_too)
        except (unpickle.Unreadable, NotStorable) as error:
            self._note_refused()
            return codec.encode([f"<not imported: {codec.clean_text(str(error), 300)}>"]), "{}", False


def _unstorable(text: Any, reason: str) -> Unstorable:
    return Unstorable(
        type="pickle", reason=f"not imported from Django-Q: {reason}", repr=f"<{len(str(text)):,} characters>"
    )


def _failure(value: Any) -> dict[str, str]:
    """Return exception, message and traceback of a failure's text."""
    text = value if isinstance(value, str) else repr(value)
    found = _FAILURE.match(text)
    message, traceback = (found["message"], found["traceback"]) if found else (text, "")
    last = traceback.rstrip().splitlines()[-1:] or [""]
    named = _EXCEPTION.match(last[0])
    exception = named[1] if named else "Exception"
    return {
        "exception": exception if "." in exception else f"builtins.{exception}",
        "message": codec.clean_text(message, 10_000),
        "traceback": codec.clean_text(traceback, 100_000),
    }
