"""Django's documented examples for tasks, with only the BACKEND of the setting changed; and django-tasks-db's."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial

import pytest
from django.core import mail
from django.core.mail import send_mail
from django.db import transaction
from django.utils import timezone

from pgq.testing import drain, enqueued
from tests.app.models import Note
from tests.support.django_tasks import tasks

task, default_task_backend = tasks.task, tasks.default_task_backend
logger = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.smoke,
    # Django 6.1 warns of settings without MAILERS, which older ones do not have.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning"),
]


@task
def email_users(emails, subject, message):
    return send_mail(subject=subject, message=message, from_email=None, recipient_list=emails)


@task(priority=2, queue_name="emails")
def email_users_soon(emails, subject, message):
    return send_mail(subject=subject, message=message, from_email=None, recipient_list=emails)


@task(takes_context=True)
def email_users_and_log(context, emails, subject, message):
    logger.debug("Attempt %s to send user email. Task result id: %s.", context.attempt, context.task_result.id)
    return send_mail(subject=subject, message=message, from_email=None, recipient_list=emails)


@task
async def process_data(data):
    return data


@task
def calculate_meaning_of_life() -> int:
    return 42


@task
def divide(by):
    return 1 / by


@task
def my_task(thing_num):
    return Note.objects.get(pk=thing_num).text


def test_enqueue_and_look():
    result = email_users.enqueue(emails=["user@example.com"], subject="You have a message", message="Hello there!")
    assert (result.status, len(mail.outbox)) == ("READY", 0)
    drain()
    result.refresh()
    assert (result.status, result.return_value, mail.outbox[0].subject) == ("SUCCESSFUL", 1, "You have a message")
    assert (
        email_users.get_result(result.id).return_value == default_task_backend.get_result(result.id).return_value == 1
    )


def test_priority_queue_and_time():
    assert (email_users_soon.priority, email_users_soon.queue_name) == (2, "emails")
    assert email_users.using(priority=10).priority == 10
    later = email_users.using(run_after=timezone.now() + timedelta(days=1), queue_name="emails")
    later.enqueue(emails=["user@example.com"], subject="Later", message="")
    assert drain() == []
    drain(due=True)
    assert [message.subject for message in mail.outbox] == ["Later"]


def test_context(caplog):
    result = email_users_and_log.enqueue(emails=["user@example.com"], subject="x", message="y")
    with caplog.at_level(logging.DEBUG, __name__):
        drain()
    assert f"Attempt 1 to send user email. Task result id: {result.id}." in caplog.text


async def _from_a_view():
    result = await process_data.aenqueue([1, 2])
    return await process_data.aget_result(result.id)


def test_async():
    from asgiref.sync import async_to_sync

    result = async_to_sync(_from_a_view)()
    drain()
    assert process_data.get_result(result.id).return_value == [1, 2]


def test_arguments_are_json():
    with pytest.raises(TypeError):
        process_data.enqueue(datetime.now())
    result = process_data.enqueue((1, 2))
    drain()
    result.refresh()
    assert result.return_value == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_transactions():
    with transaction.atomic():
        note = Note.objects.create(text="1")
        transaction.on_commit(partial(my_task.enqueue, thing_num=note.pk))
    # Without on_commit it is the same: the row of the task is there if that of the note is.
    with transaction.atomic():
        second = my_task.enqueue(thing_num=Note.objects.create(text="2").pk)
    assert len(enqueued()) == 2
    drain()
    assert my_task.get_result(second.id).return_value == "2"


def test_return_values_and_errors():
    result = calculate_meaning_of_life.enqueue()
    with pytest.raises(ValueError, match="not finished"):
        result.return_value
    failed = divide.enqueue(by=0)
    drain()
    result.refresh()
    failed.refresh()
    assert result.return_value == 42
    assert failed.errors[0].exception_class is ZeroDivisionError
    assert "ZeroDivisionError: division by zero" in failed.errors[0].traceback
