"""What was named is what runs: by each door a path leads to the very object, or the object is refused at once."""

from __future__ import annotations

import datetime as dt
import functools
import json
import math
from unittest import mock

import pytest

from pgq.enqueue import registry
from pgq.enqueue.make import make_task
from pgq.errors import EnqueueError, NotStorable, UnknownFunction, UnknownOption
from pgq.models import QueuedTask, Schedule
from pgq.records.options import CALL_OPTIONS, TASK_OPTIONS, TaskOptions
from pgq.tasks import AsyncTask, Chain, async_chain, async_iter, async_task, enqueue_many, schedule, task
from pgq.testing import drain, enqueued
from tests.app.models import Note
from tests.functions import named
from tests.support.hand import MARK

pytestmark = pytest.mark.django_db


def options_of(id):
    return json.loads(QueuedTask.objects.get(pk=id).__dict__["options"])


def later_link(func):
    async_chain([MARK, (func, 1)])
    [row] = QueuedTask.objects.all()
    return json.loads(row.__dict__["options"])["chain"][0]["func"]


#: Everything by which a function can be named; each returns the path that was stored.
DOORS = {
    "async_task": lambda func: QueuedTask.objects.get(pk=async_task(func, 1)).func,
    "AsyncTask": lambda func: QueuedTask.objects.get(pk=AsyncTask(func, 1).run()).func,
    "hook": lambda func: QueuedTask.objects.get(pk=async_task(MARK, hook=func)).hook,
    "q_options": lambda func: QueuedTask.objects.get(pk=async_task(MARK, q_options={"hook": func})).hook,
    "enqueue_many": lambda func: QueuedTask.objects.get(pk=enqueue_many(func, [1])[0]).func,
    "then": lambda func: enqueue_many(MARK, [1], then=func) and QueuedTask.objects.exclude(func=MARK).get().func,
    "async_iter": lambda func: async_iter(func, [1]) and QueuedTask.objects.get(remaining=None).func,
    "link": lambda func: QueuedTask.objects.get(group=async_chain([(func, (1,))])).func,
    "Chain": lambda func: QueuedTask.objects.get(group=Chain([(func, 1)]).run()).func,
    "later link": later_link,
    "schedule": lambda func: schedule(func, 1, schedule_type="D").func,
    "schedule's hook": lambda func: schedule(MARK, hook=func, schedule_type="D").hook,
    "schedule's q_options": lambda func: schedule(MARK, q_options={"hook": func}, schedule_type="D").hook,
    "retry_backoff": lambda func: options_of(async_task(MARK, retry_backoff=func))["backoff"]["callable"],
    "@task(retry_backoff)": lambda func: task(retry_backoff=func)(named.add).options.retry_backoff["callable"],
    "argument": lambda func: json.loads(QueuedTask.objects.get(pk=async_task(MARK, func)).__dict__["args"])[0],
}
GOOD = {
    "function": (named.add, "tests.functions.named.add"),
    "decorated where it is defined": (named.decorated, "tests.functions.named.decorated"),
    "@task": (named.registered, "tests.functions.named.registered"),
    "classmethod": (named.Base.run, "tests.functions.named.Base.run"),
    "inherited classmethod": (named.Child.run, "tests.functions.named.Child.run"),
    "staticmethod": (named.Child.plain, "tests.functions.named.Base.plain"),
    "class": (named.Base, "tests.functions.named.Base"),
    "of C": (math.hypot, "math.hypot"),
    "classmethod of C": (dt.datetime.fromisoformat, "datetime.datetime.fromisoformat"),
}
ELSEWHERE = "there a worker would find another object"
BAD = {
    "lambda": (lambda *args: None, "is a lambda"),
    "nested": (named.nested(), "inside a function"),
    "method of an instance": (named.bound, "bound to a tests.functions.named.Base"),
    "method of a built-in object": ([].append, "without a name"),
    "partial": (named.half, "functools.partial"),
    "instance": (named.instance, "without a name"),
    "wrapper": (named.logged(named.add), ELSEWHERE),
    "wrapper above @task": (named.wrapped_task, ELSEWHERE),
    "@task below classmethod": (named.Base.mixed, ELSEWHERE),
    "super's classmethod": (super(named.Overriding, named.Overriding).run, ELSEWHERE),
    "class below a decorator": (named.below, ELSEWHERE),
    "of __main__": (named.of_main, "__main__"),
}
#: The value as an argument is looked for in its module, where the wrapper stands.
NOT_AS_ARGUMENT = {("argument", "wrapper above @task"), ("argument", "@task below classmethod")}


@pytest.fixture(autouse=True)
def _registry_as_it_was():
    with mock.patch.dict(registry._registered):
        yield


@pytest.mark.parametrize("door", DOORS)
def test_path_leads_to_the_object_that_was_named(door):
    for kind, (value, path) in GOOD.items():
        QueuedTask.objects.all().delete()
        stored = DOORS[door](value)
        stored = stored if isinstance(stored, str) else [*stored.values()][0]
        assert stored == path, kind
        found = registry.resolve(stored, signed=True)
        assert found in (value, getattr(value, "func", value)), kind


@pytest.mark.parametrize("door", DOORS)
def test_what_no_path_leads_to_is_refused_at_once(door):
    for kind, (value, reason) in BAD.items():
        if (door, kind) in NOT_AS_ARGUMENT:
            continue
        with pytest.raises((UnknownFunction, NotStorable), match=reason) as caught:
            DOORS[door](value)
        argument = {"schedule's hook": "hook", "schedule's q_options": "hook", "q_options": "hook",
                    "@task(retry_backoff)": "retry_backoff", "argument": "args[0]"}  # fmt: skip
        wanted = argument.get(door, door if door in ("hook", "then", "retry_backoff") else "func")
        assert str(caught.value).startswith(wanted), kind
        assert len(str(caught.value)) < 400
    assert not QueuedTask.objects.exists()
    assert not Schedule.objects.exists()


def test_inherited_classmethod_runs_as_the_class_that_was_named():
    async_task(named.Child.run)
    async_task("tests.functions.named.Base.run")
    assert [ran.result for ran in drain()] == ["Child", "Base"]


def test_options_of_a_task_hold_by_any_of_its_names(monkeypatch):
    monkeypatch.setattr(named.Base, "alias", named.registered, raising=False)
    for func in (named.registered, "tests.functions.named.registered", "tests.functions.named.Base.alias"):
        row = QueuedTask.objects.get(pk=async_task(func))
        assert (row.func, row.queue, row.priority) == ("tests.functions.named.registered", "named", 3)


def test_second_task_of_a_name_is_not_taken_for_the_first():
    second = task(named.logged(named.add))
    second.enqueue()
    assert [ran.result for ran in drain()] == [["logged", 3]]
    first = task(named.add)
    first.enqueue()
    assert [ran.result for ran in drain()] == [3]
    for enqueue in (second.enqueue, second.using(priority=1).enqueue, lambda: async_task(second)):
        with pytest.raises(UnknownFunction, match=ELSEWHERE):
            enqueue()


def test_task_of_a_script_can_be_called_and_not_enqueued():
    script = task(named.of_main)
    assert script() == "main"
    for enqueue in (script.enqueue, lambda: async_task(script), lambda: async_task("__main__.of_main")):
        with pytest.raises(UnknownFunction, match="__main__"):
            enqueue()


def test_what_stands_at_a_path_now_is_what_runs():
    """A function that a test replaces is replaced for that time, in the place where it is named."""

    def run():
        async_task("tests.functions.named.add")
        [ran] = drain()
        return ran.result

    assert run() == 3
    with mock.patch("tests.functions.named.add", return_value="mocked"):
        assert run() == "mocked"
    assert run() == 3


def test_decorator_refuses_what_cannot_be_called():
    with pytest.raises(UnknownFunction, match="bare classmethod"):
        task(classmethod(named.add))
    with pytest.raises(UnknownFunction, match="is not a function"):
        task(functools.partialmethod(named.add))


# ------------------------------------------------------------------------------------------------- exceptions


@pytest.mark.parametrize("option", ["retry_on", "no_retry_on"])
def test_exceptions_are_found_by_what_was_named(option):
    def stored(*values):
        return json.loads(make_task(MARK, options=TaskOptions.of(**{option: values})).options)[option]

    assert stored(OSError, Note.DoesNotExist, named.Original) == [
        "builtins.OSError", "tests.app.models.Note.DoesNotExist", "tests.functions.named.Original",
    ]  # fmt: skip
    # By the path of a module that only imports it: a worker would look for another name in vain.
    assert stored("django.db.IntegrityError", "builtins.IOError") == [
        "django.db.utils.IntegrityError", "builtins.OSError",
    ]  # fmt: skip
    for value, reason in (
        (named.below, ELSEWHERE), (named.local_exception(), "inside a function"), (named.add, "exception classes"),
        ("shop.nope.X", "no module"), ("tests.functions.named.add", "exception classes"),
        ("plain", "dotted path"), (5, "5"),
    ):  # fmt: skip
        with pytest.raises(EnqueueError, match=reason) as caught:
            stored(value)
        assert str(caught.value).startswith(f"{option}: ")


def test_text_in_a_decorator_is_followed_when_it_is_enqueued():
    """Not before: what it leads to may import the module that is being imported."""
    good = task(retry_on=["django.db.IntegrityError"])(named.add)
    assert options_of(good.enqueue())["retry_on"] == ["django.db.utils.IntegrityError"]
    bad = task(retry_on=["shop.nope.X"], retry_backoff={"callable": "shop.nope.f"})(named.add)
    with pytest.raises(UnknownFunction, match=r"shop\.nope"):
        bad.enqueue()
    with pytest.raises(UnknownFunction, match=r"^retry_backoff: 'shop.nope.f'"):
        async_task(MARK, retry_backoff={"callable": "shop.nope.f"})


@pytest.mark.parametrize("more", [{}, {"sensitive": True}])
@pytest.mark.parametrize("option", ["retry_on", "no_retry_on"])
def test_empty_list_is_kept(option, more):
    """`retry_on=[]` says: retry nothing. It did so only beside another option."""
    assert json.loads(make_task(MARK, options=TaskOptions.of(**{option: []}, **more)).options) == {option: [], **more}


def test_nothing_is_retried_with_an_empty_list():
    async_task("tests.functions.common.fail", max_attempts=3, retry_on=[])
    assert [ran.state for ran in drain(due=True)] == ["failed"]


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("ask", [lambda: task(prio=3), lambda: named.registered.using(prio=3)])
def test_unknown_option_is_refused_where_it_is_written(ask):
    with pytest.raises(UnknownOption, match=r"^prio: there is no such option; did you mean priority\?") as caught:
        ask()
    listed = str(caught.value).partition("There are ")[2]
    assert {"queue", "priority", "timeout", "retry_on"} <= set(listed.rstrip(".").split(", "))
    assert not {"chain_pass", "hook_of", "forget"} & set(listed.rstrip(".").split(", "))


@pytest.mark.parametrize("inner", ["chain_pass", "hook_of", "collects"])
def test_inner_options_are_not_for_users(inner):
    for ask in (lambda: task(**{inner: True}), lambda: named.registered.using(**{inner: True})):
        with pytest.raises(UnknownOption, match=inner):
            ask()


def test_unknown_option_of_a_call_is_named_with_the_nearest():
    with pytest.raises(UnknownOption, match=r"^q_options: there is no option prioritty; did you mean priority\?"):
        async_task(MARK, q_options={"prioritty": 1})
    with pytest.raises(UnknownOption, match=r"^prioritty: .*did you mean priority\?"):
        enqueue_many(MARK, [1], prioritty=1)


def test_every_option_that_is_listed_is_taken():
    given = {
        "queue": "q", "priority": 1, "run_after": 60, "name": "n", "group": "g", "hook": MARK, "timeout": 5,
        "max_attempts": 2, "retry_backoff": 5, "retry_on": [OSError], "no_retry_on": [], "save": True, "keep": "7d",
        "cached": 5, "ack_failure": True, "ack": "task", "sensitive": True, "key": "a", "unique": "a", "expires": 60,
        "debounce": False,
    }  # fmt: skip
    assert set(given) == set(CALL_OPTIONS)
    assert named.registered.using(**given).enqueue()
    fixed = {name: given[name] for name in TASK_OPTIONS if name in given}
    assert task(atomic=True, **fixed)(named.add).enqueue()
    [row] = enqueued(named.add)
    assert (row.queue, row.priority, row.timeout, row.max_attempts) == ("q", 1, 5.0, 2)


# ------------------------------------------------------------------------------------------------- model instances


def test_instance_that_is_gone_is_a_failed_attempt():
    """Its retries, its hook, its group and who waits for it hear of it; a parked row told nobody."""
    late, gone = Note.objects.create(text="late"), Note.objects.create(text="gone")
    async_task("tests.functions.common.note_text", late, max_attempts=3, retry_backoff=3600)
    pk = late.pk
    late.delete()
    [ran] = drain()
    assert (ran.state, type(ran.error).__name__) == ("retried", "ObjectGone")
    # It was only late: of another database, whose transaction had not ended.
    Note.objects.create(pk=pk, text="late")
    assert [(ran.state, ran.attempt) for ran in drain(due=True)] == [("succeeded", 2)]
    async_task("tests.functions.common.note_text", gone, hook=MARK)
    gone.delete()
    assert [(ran.func, ran.state) for ran in drain()][0] == ("tests.functions.common.note_text", "failed")
    assert not QueuedTask.objects.filter(parked__isnull=False).exists()
