"""The examples of Django-Q's manual, on a real pool, with only names changed.

``from django_q.tasks import ...`` has become ``from pgq.tasks import ...``, and that is all. Arrays of NumPy, which
JSON cannot hold, need one setting: ``PGQ["allow_pickle"]``.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db.models.signals import pre_save
from django.dispatch import receiver
from django.test import override_settings
from django.utils import timezone

from pgq.models import Schedule
from pgq.tasks import (
    AsyncTask,
    Chain,
    Iter,
    async_chain,
    async_iter,
    async_task,
    delete_group,
    fetch,
    result,
    result_group,
    schedule,
)
from tests.app.models import Note
from tests.functions.examples import parzen_estimation, print_result
from tests.support.pools import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

#: Milliseconds. Only waited for when something is wrong.
WAIT = 30_000
PGQ = {"allow_pickle": True}


@pytest.fixture
def outbox(tmp_path):
    folder = tmp_path / "outbox"
    folder.mkdir()

    def mails():
        text = "".join(file.read_text() for file in folder.iterdir())
        return [mail for mail in text.split("-" * 79) if mail.strip()]

    mails.folder = folder
    return mails


@pytest.fixture
def example_pool(pool, tmp_path, outbox):
    """A pool that shares a cache and an outbox with the test."""
    cache = tmp_path / "cache"
    caches = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(cache)}}
    env = {
        "DJANGO_SETTINGS_MODULE": "tests.support.example_settings",
        "PGQ_TEST_CACHE": str(cache),
        "PGQ_TEST_OUTBOX": str(outbox.folder),
    }
    with override_settings(CACHES=caches, PGQ=PGQ):
        yield pool(env=env, tick=0.1, **PGQ)


def test_emails(example_pool, outbox):
    def welcome_mail(user):
        # Right away,
        async_task("django.core.mail.send_mail", "Welcome", "Welcome to our site", "from@example.com", [user.email])
        # and this one a little later. A schedule that runs once is gone then.
        schedule(
            "django.core.mail.send_mail", "Follow up", "Here are some tips", "from@example.com", [user.email],
            schedule_type=Schedule.ONCE, next_run=timezone.now() + timedelta(seconds=0.5),
        )  # fmt: skip

    welcome_mail(User.objects.create_user("ada", "ada@example.com"))
    wait_for(lambda: len(outbox()) == 2)
    first, second = sorted(outbox(), key=lambda mail: "Follow up" in mail)
    assert "Subject: Welcome" in first
    assert "To: ada@example.com" in second
    assert Schedule.objects.count() == 0


def test_signals(example_pool, outbox):
    @receiver(pre_save, sender=User)
    def email_changed(sender, instance, **kwargs):
        before = User.objects.filter(pk=instance.pk).first()
        if before is not None and before.email != instance.email:
            async_task("tests.functions.examples.inform_user", before)

    try:
        user = User.objects.create_user("ada", "ada@example.com")
        user.email = "countess@example.com"
        user.save()
    finally:
        pre_save.disconnect(email_changed, sender=User)
    [mail] = wait_for(outbox)
    # A model instance is loaded anew when the task runs.
    assert "it is countess@example.com now" in mail


def test_report_with_a_hook(example_pool, outbox):
    user = User.objects.create_user("ada", "ada@example.com")
    for title in ("Sales", "impossible"):
        async_task(
            "tests.functions.examples.create_html_report", user, title, hook="tests.functions.examples.email_report"
        )
    wait_for(lambda: len(outbox()) == 2)
    mails = "".join(outbox())
    assert "<h1>Sales for ada</h1>" in mails
    assert "A report failed" in mails
    assert "no such report" in mails


def test_shell_commands(example_pool, tmp_path):
    id = async_task("subprocess.call", ["touch", str(tmp_path / "touched")])
    assert result(id, WAIT) == 0
    assert (tmp_path / "touched").exists()
    id = async_task("subprocess.check_output", ["echo", "hello"], task_name="echo")
    assert result("echo", WAIT) == b"hello\n"
    id = async_task("subprocess.run", ["echo", "hello"], capture_output=True, text=True)
    assert result(id, WAIT).stdout == "hello\n"


def test_management_commands(example_pool):
    Session.objects.create(session_key="old", session_data="", expire_date=timezone.now() - timedelta(days=1))
    schedule("django.core.management.call_command", "clearsessions", schedule_type="H")
    wait_for(lambda: Session.objects.count() == 0)
    assert Schedule.objects.get().next_run > timezone.now()


def test_groups_parzen_windows(example_pool):
    delete_group("parzen", cached=True)
    sample = np.random.default_rng(7).multivariate_normal([0, 0], [[1, 0], [0, 1]], 10_000)
    widths = np.linspace(1.0, 1.2, 20)
    x = np.array([[0], [0]])
    for w in widths:
        async_task(parzen_estimation, sample, x, w, group="parzen", cached=True)
    estimates = result_group("parzen", count=20, wait=WAIT, cached=True)
    assert sorted(found["h"] for found in estimates) == list(widths)
    # The density of the normal distribution at its centre.
    assert all(found["estimation"] == pytest.approx(1 / (2 * np.pi), abs=0.03) for found in estimates)
    # Nothing of it is in the database.
    assert result_group("parzen") is None


def test_iter_parzen_windows(example_pool):
    sample = np.random.default_rng(7).multivariate_normal([0, 0], [[1, 0], [0, 1]], 1000)
    x = np.array([[0], [0]])
    args = [(sample, x, w) for w in np.linspace(1.0, 1.2, 10)]
    id = async_iter(parzen_estimation, args, cached=True)
    estimates = result(id, wait=WAIT, cached=True)
    assert [found["h"] for found in estimates] == [w for _, _, w in args]


def test_iter(example_pool):
    id = async_iter("math.floor", [x + 0.5 for x in range(100)])
    assert result(id, wait=WAIT) == list(range(100))
    i = Iter("math.copysign")
    for x in range(5):
        i.append(x, -1)
    i.run()
    assert i.result(wait=WAIT) == [0, -1, -2, -3, -4]


def test_chains(example_pool):
    group_id = async_chain([("math.copysign", (1, -1)), ("math.floor", (1.5,))])
    assert result_group(group_id, count=2, wait=WAIT) == [1, -1]
    chain = Chain(cached=True)
    chain.append("math.copysign", 1, -1)
    chain.append("math.floor", 2.5)
    chain.run()
    assert chain.result(wait=WAIT) == [2, -1]
    assert chain.current() == chain.length() == 2


def test_tasks_hooks_and_options(example_pool):
    # As a function, by its path, and as an instance.
    one = async_task("math.copysign", 2, -2, hook="tests.functions.examples.print_result", task_name="sign")
    two = async_task("math.copysign", 2, -2, q_options={"hook": print_result, "group": "math", "timeout": 30})
    three = AsyncTask("math.copysign", 2, -2, hook=print_result)
    three.cached = 60
    three.run()
    assert [result(one, WAIT), result(two, WAIT), three.result(wait=WAIT)] == [-2, -2, -2]
    wait_for(lambda: Note.objects.count() == 3)
    assert Note.objects.filter(text="sign: -2.0").exists()
    task = fetch(two)
    assert (task.group, task.success, task.attempt_count, task.cluster) == ("math", True, 1, "default")
    assert Note.objects.filter(text=f"{task.name}: -2.0").exists()


def test_schedules(example_pool):
    schedule("math.copysign", 2, -2, hook="tests.functions.examples.print_result", schedule_type=Schedule.DAILY)
    s = Schedule.objects.get()
    wait_for(lambda: Note.objects.exists())
    s.refresh_from_db()
    wait_for(s.success)
    assert s.last_task().result == -2
    assert s.next_run > timezone.now() + timedelta(hours=22)
