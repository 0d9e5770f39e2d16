"""Stored values in models: what is read, saved and read again stays what it was."""

from __future__ import annotations

import pytest

from pgq.codec.stored import stored_text
from pgq.models import QueuedTask, Schedule
from pgq.tasks import async_task, schedule
from tests.app import tasks
from tests.app.models import Note

pytestmark = pytest.mark.django_db


def test_saving_an_unsigned_row_keeps_tags_that_were_only_described():
    text = '[{"$callable": "os.getcwd"}]'
    row = QueuedTask.objects.create(func="tests.app.tasks.noop")
    QueuedTask.objects.filter(pk=row.pk).update(args=[])
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE pgq_queue SET args = %s", [text])
    row = QueuedTask.objects.get(pk=row.pk)
    assert "os.getcwd" in str(row.args)
    row.save()
    assert stored_text(QueuedTask.objects.get(pk=row.pk), "args") == text


def test_a_row_that_is_read_again_still_verifies():
    note = Note.objects.create(text="x")
    row = QueuedTask.objects.get(pk=async_task(tasks.noop, note))
    assert row.args == (note,)
    row.refresh_from_db()
    assert row.args == (note,)
    row.refresh_from_db(fields=["args"])
    assert row.args == (note,)


def test_saving_a_signed_schedule_keeps_its_signature_good():
    note = Note.objects.create(text="x")
    made = schedule(tasks.noop, note, name="s", schedule_type="D")
    row = Schedule.objects.get(pk=made.pk)
    assert row.args == (note,)
    row.minutes = 3
    row.save()
    assert Schedule.objects.get(pk=made.pk).args == (note,)


def test_an_attribute_that_is_set_is_saved():
    row = QueuedTask.objects.create(func="tests.app.tasks.noop", args=[1])
    row.args = (2, "two")
    row.save()
    assert QueuedTask.objects.get(pk=row.pk).args == (2, "two")
