"""Errors of a field: what they carry, and that it comes along into another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from pgq import codec
from pgq.codec import literals
from pgq.enqueue import registry
from pgq.enqueue.make import check_text
from pgq.enqueue.options import path
from pgq.errors import EnqueueError, NotStorable, UnknownFunction, UnknownOption, field_of, invalid, reason_of
from pgq.records.options import unknown_option

ERRORS = [
    (EnqueueError("priority", "must be a number"), "priority: must be a number"),
    (UnknownFunction("func", "'x' leads nowhere"), "func: 'x' leads nowhere"),
    (unknown_option("x", ["queue"]), "x: there is no such option. There are queue."),
    (unknown_option("x", ["queue"], of="q_options"), "q_options: there is no option x. There are queue."),
    (NotStorable("args", "args[0] takes too much"), "args[0] takes too much"),
    (invalid("cron", "give an expression"), "cron: give an expression"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS)
def test_an_error_carries_its_field_into_copies_and_other_processes(error: ValueError, text: str) -> None:
    for one in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(one), str(one)) == (type(error), text)
        assert (field_of(one), reason_of(one)) == (error.field, error.reason)  # type: ignore[attr-defined]
        assert text in (f"{field_of(one)}: {reason_of(one)}", reason_of(one))


def test_an_error_of_another_kind_has_no_field_and_is_its_own_reason() -> None:
    error = ValueError("priority: looks like one")
    assert (field_of(error), reason_of(error)) == (None, "priority: looks like one")


def test_an_error_is_raised_again_for_the_argument_that_the_caller_knows() -> None:
    with pytest.raises(UnknownFunction) as caught:
        path("hook", "nowhere.at_all")
    assert (caught.value.field, str(caught.value)) == ("hook", "hook: 'nowhere.at_all': there is no module 'nowhere'")
    # Only the field: what the reason quotes stays.
    again = EnqueueError("func", "'func: x' is no path").of("hook")
    assert str(again) == "hook: 'func: x' is no path"


def test_each_way_in_names_the_field() -> None:
    for call, field in (
        (lambda: registry.locate("nowhere.at_all"), "func"),
        (lambda: check_text("queue", 5), "queue"),
        (lambda: codec.encode_args((1, object()), {}), "args"),
        (lambda: codec.encode_args((), {"a": object()}), "kwargs"),
        (lambda: codec.encode_args(("x" * 50,), {"b": "y" * 60}, limit=100), "kwargs"),
        (lambda: codec.encode(object(), where="options"), "options"),
        (lambda: literals.read("kwargs", "x="), "kwargs"),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # the field is what it is about
            call()
        assert field_of(caught.value) == field, caught.value
    assert isinstance(unknown_option("x", ["y"]), UnknownOption)
