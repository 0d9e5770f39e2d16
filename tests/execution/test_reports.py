"""What a worker logs of a failure: trackers of errors make one issue of one kind of failure, and get the exception."""

from __future__ import annotations

import gc
import io
import logging
import traceback
import weakref

import pytest
from django.db import connection
from django.test import override_settings

from pgq.pool.logs import JsonFormatter, PlainFormatter
from pgq.pool.worker.surroundings import Surroundings
from pgq.tasks import async_task
from pgq.testing import drain
from tests.support.hand import Hand

pytestmark = pytest.mark.django_db(transaction=True)

HERE = "tests.execution.test_reports"


class Failure(Exception):
    pass


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit("from __str__")


#: The last exception that `fail` raised.
raised: list[weakref.ref[BaseException]] = []


def fail(message):
    error = Failure(message)
    raised[:] = [weakref.ref(error)]
    raise error


def succeed():
    return "fine"


def fail_otherwise():
    raise KeyError("other")


def fail_hostilely():
    raise Hostile


class Keeping(logging.Handler):
    """As a tracker's: keeps what it is given, by its template. Also a stream, as a log file is."""

    def __init__(self) -> None:
        super().__init__()
        self.by_template: dict[str, list[logging.LogRecord]] = {}
        self.text = io.StringIO()

    def emit(self, record):
        self.by_template.setdefault(record.msg, []).append(record)
        self.text.write(self.format(record) + "\n")


@pytest.fixture
def hand():
    hand = Hand()
    yield hand
    hand.close()


@pytest.fixture
def kept():
    logger, handler = logging.getLogger("pgq"), Keeping()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_one_template_for_each_function_and_the_exception_with_it(hand, kept):
    ids = [async_task(fail, message) for message in ("a", "b %s")]
    async_task(fail_otherwise)
    hand.work()
    assert [len(records) for records in kept.by_template.values()] == [2, 1]
    first, second = kept.by_template[f"task %s ({HERE}.fail) failed: %s: %s"]
    assert (first.levelname, first.getMessage()) == (
        "ERROR",
        f"task {ids[0]} ({HERE}.fail) failed: {HERE}.Failure: a",
    )
    kind, error, trace = second.exc_info
    assert (kind, str(error)) == (Failure, "b %s")
    assert [frame.name for frame in traceback.extract_tb(trace)] == ["fail"]


def test_a_retry_is_a_warning_with_the_exception(hand, kept):
    async_task(fail, "a", max_attempts=2, retry_backoff=60)
    hand.work()
    [(template, [record])] = kept.by_template.items()
    assert template.startswith(f"task %s ({HERE}.fail) failed in attempt %d ")
    assert (record.levelname, str(record.exc_info[1])) == ("WARNING", "a")


def test_at_debug_there_is_a_line_for_each_success(hand, kept, caplog):
    async_task(f"{HERE}.succeed")
    hand.work()
    assert kept.by_template == {}
    with caplog.at_level(logging.DEBUG, "pgq"):
        talkative = Hand()
        ids = [async_task(f"{HERE}.succeed"), async_task(f"{HERE}.succeed")]
        talkative.work()
        talkative.close()
    [(template, records)] = kept.by_template.items()
    assert template == f"task %s ({HERE}.succeed) succeeded in %.1f ms, in attempt %d"
    assert [record.levelname for record in records] == ["DEBUG", "DEBUG"]
    assert [record.args[0] for record in records] == ids
    assert all(0 < record.args[1] < 5000 and record.args[2] == 1 for record in records)
    assert "None" not in kept.text.getvalue()


def test_drain_logs_as_a_worker_does(kept, caplog):
    ids = [async_task(fail, "a"), async_task(fail, "a", max_attempts=2, retry_backoff=60)]
    with caplog.at_level(logging.DEBUG, "pgq"):
        good = async_task(f"{HERE}.succeed")
        drain()
        # What the caller gets raised is not logged as well.
        with override_settings(PGQ={"sync": True}), pytest.raises(Failure):
            async_task(fail, "b")
    failed, retried, succeeded = [record for records in kept.by_template.values() for record in records]
    assert [record.args[0] for record in (failed, retried, succeeded)] == [*ids, good]
    assert [record.levelname for record in (failed, retried, succeeded)] == ["ERROR", "WARNING", "DEBUG"]
    kind, error, _ = failed.exc_info
    assert (kind, str(error)) == (Failure, "a")


def test_a_name_from_psql_is_no_template(hand, kept):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO pgq_queue (func) VALUES (%s)", ["a.%s%d%(x)s"])
    hand.work()
    [(_, [record])] = kept.by_template.items()
    assert "(a.%s%d%(x)s) is parked: " in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize("formatter", [None, PlainFormatter(), JsonFormatter()])
def test_what_is_written_is_bounded_and_safe(hand, kept, formatter):
    kept.setFormatter(formatter)
    async_task(fail, "x" * 5_000_000)
    async_task(fail_hostilely)
    hand.work()
    text = kept.text.getvalue()
    assert len(text) < 500_000
    assert "in fail" in text
    assert "__str__ raised SystemExit" in text


def test_an_exception_is_not_kept_until_the_task_is_settled(hand, monkeypatch):
    # pytest keeps what it is given.
    monkeypatch.setattr(logging.getLogger("pgq"), "propagate", False)
    hand.surroundings = Surroundings()
    async_task(fail, "a")
    hand._exchange()
    hand._run_waiting()
    assert len(hand.exchange.finished) == 1
    # It names itself in a frame of its traceback.
    gc.collect()
    assert raised[0]() is None
    hand.exchange.settle(insist=True)
