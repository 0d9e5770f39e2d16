"""What is stored of an exception, and that no text elsewhere names a class that there is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import pgq
from pgq import errors
from pgq.codec import failures
from pgq.ground import backoff
from pgq.records import Failure

ROOT = Path(pgq.__file__).parent
NAMED = re.compile(r"pgq\.errors\.([A-Z]\w+)")


def test_a_failure_becomes_an_entry_of_the_history_and_comes_back() -> None:
    failure = failures.without_traceback(errors.WorkerDied("it\0died"))
    assert failure == Failure(
        exception="pgq.errors.WorkerDied", message="it\N{REPLACEMENT CHARACTER}died", traceback=""
    )
    entry = failures.as_json(failure, postponed=3)
    assert json.loads(entry)["postponed"] == 3
    assert failures.from_json(entry) == failure


def test_the_path_of_an_exception_is_that_of_its_class() -> None:
    assert failures.path_of(ValueError) == "builtins.ValueError"
    assert failures.path_of(errors.NotAllowed) == "pgq.errors.NotAllowed"


def test_a_traceback_begins_in_the_users_code() -> None:
    def users(attempt: int, error: BaseException | None) -> float:
        raise LookupError("no delay")

    with pytest.raises(LookupError) as caught:
        backoff.delay({"callable": "app.users"}, 1, None, lambda path: users)
    ours = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    assert ours.tb_frame.f_code.co_filename == backoff.__file__  # type: ignore[union-attr]
    assert failures.users_part(ours).tb_frame.f_code is users.__code__  # type: ignore[union-attr]


def test_the_classes_that_statements_name_are_those_of_the_package() -> None:
    found = [(path, name) for path in ROOT.rglob("*.sql") for name in NAMED.findall(path.read_text(encoding="utf-8"))]
    assert ("settle.sql", "NotAllowed") in {(path.name, name) for path, name in found}
    for path, name in found:
        assert failures.path_of(getattr(errors, name)) == f"pgq.errors.{name}", path
