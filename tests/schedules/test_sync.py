"""The table of schedules kept in step with the schedules in code: each case of the table in docs/guide/schedules.md."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from pgq.config import Every, ScheduleConfig, cron
from pgq.enqueue import discovery, registry
from pgq.models import Schedule
from pgq.schedules import drift, overview
from pgq.schedules.fire import resume
from pgq.schedules.sync import Did, sync
from pgq.tasks import schedule
from pgq.testing import enqueued, fire_schedules, freeze
from tests.functions import common as functions

pytestmark = pytest.mark.django_db

NOTE = "tests.functions.common.note"
START = datetime(2032, 1, 31, 10, 7, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock():
    with freeze(START) as clock:
        yield clock


def nightly(expression="0 2 * * *", name="nightly", **more):
    return ScheduleConfig(name, func=NOTE, when=cron(expression), **{"args": ["x"], **more})


def deploy(*schedules, how=None, **settings):
    """Sync as a release with these schedules does; return what became of each, by name."""
    with override_settings(PGQ={"schedules": list(schedules), **settings}):
        done = sync(**(how or {}))
    assert done.refused is None
    return {change.name: change.did for change in done.changes}


def row(name="nightly"):
    return Schedule.objects.get(name=name)


def test_what_is_new_is_inserted_and_signed_and_nothing_fires_by_it():
    often = ScheduleConfig("often", func=NOTE, args=["y"], when=Every(minutes=5))
    did = deploy(nightly(queue="slow", timeout=60), often)
    assert did == {"nightly": Did.INSERTED, "often": Did.INSERTED}
    assert fire_schedules() == 0
    made = row()
    assert (made.source, made.queue, made.options, made.args) == ("code", "slow", {"timeout": 60}, ("x",))
    assert made.next_run == datetime(2032, 2, 1, 2, tzinfo=UTC)
    assert row("often").next_run == START + timedelta(minutes=3)
    assert made.signature is not None


def test_a_deploy_that_changes_nothing_writes_nothing(clock):
    deploy(nightly())
    before = row().__dict__["spec"]
    clock.tick(timedelta(days=1))
    fire_schedules()
    [task] = enqueued()
    assert deploy(nightly()) == {"nightly": Did.SAME}
    assert (row().spec, row().task) == (before, task.id)
    assert fire_schedules() == 0


def test_what_the_code_changes_is_updated_and_only_other_times_move_the_next_run(clock):
    deploy(nightly())
    clock.tick(timedelta(days=1))
    # It is due, and no pool has fired it yet: the deploy does not lose the slot.
    due = row().next_run
    assert due < START + timedelta(days=1)
    assert deploy(nightly(args=["z"])) == {"nightly": Did.UPDATED}
    assert (row().args, row().next_run) == (("z",), due)
    assert deploy(nightly("0 3 * * *", args=["z"])) == {"nightly": Did.UPDATED}
    assert row().next_run == datetime(2032, 2, 2, 3, tzinfo=UTC)


def test_a_count_goes_on_unless_the_code_gives_another(clock):
    deploy(nightly("0 * * * *", repeats=3))
    clock.tick(timedelta(hours=1))
    fire_schedules()
    assert row().repeats == 2
    deploy(nightly("0 * * * *", repeats=3, args=["z"]))
    assert row().repeats == 2
    deploy(nightly("0 * * * *", repeats=5, args=["z"]))
    assert row().repeats == 5


def test_what_task_fixes_is_renewed_by_the_next_sync(monkeypatch):
    path = "tests.functions.common.configured"
    code = ScheduleConfig("fixed", func=path, when=cron("0 2 * * *"))
    assert deploy(code) == {"fixed": Did.INSERTED}
    assert (row("fixed").queue, row("fixed").options["timeout"]) == ("mail", 30.0)
    entry = registry.registered(path)
    changed = replace(entry, options=entry.options.but(timeout=90))
    monkeypatch.setitem(registry._registered, path, changed)
    assert deploy(code) == {"fixed": Did.UPDATED}
    assert row("fixed").options["timeout"] == 90.0
    assert deploy(code) == {"fixed": Did.SAME}


def test_once_runs_once_whatever_is_deployed_later(clock):
    once = ScheduleConfig("setup", func=NOTE, args=["x"], schedule_type="once")
    deploy(once)
    assert fire_schedules() == 1
    for _ in range(2):
        clock.tick(timedelta(hours=1))
        assert deploy(once) == {"setup": Did.SAME}
        assert fire_schedules() == 0
    # One whose time was over before it came is written, and never fires.
    past = ScheduleConfig("past", func=NOTE, args=["x"], next_run=START - timedelta(days=1))
    assert deploy(once, past)["past"] == Did.INSERTED
    assert fire_schedules() == 0


# ------------------------------------------------------------------------------------------------- operators


def test_an_edit_stays_until_the_code_changes_and_then_is_a_drift():
    deploy(nightly())
    edited = row()
    edited.cron = "30 4 * * *"
    edited.save()
    assert deploy(nightly()) == {"nightly": Did.SAME}
    assert deploy(nightly("0 3 * * *")) == {"nightly": Did.DRIFT}
    assert deploy(nightly("0 3 * * *")) == {"nightly": Did.DRIFT}
    assert row().cron == "30 4 * * *"
    # The code says what the operator wrote: they agree again.
    assert deploy(nightly("30 4 * * *")) == {"nightly": Did.UPDATED}
    assert deploy(nightly("0 3 * * *")) == {"nightly": Did.UPDATED}
    edited = row()
    edited.cron = "30 4 * * *"
    edited.save()
    assert deploy(nightly("0 3 * * *"), how={"force": True}) == {"nightly": Did.UPDATED}
    assert row().cron == "0 3 * * *"


def test_a_pause_stays_through_changes_and_through_going_and_coming_back():
    deploy(nightly())
    overview.pause(row())
    assert deploy(nightly("0 3 * * *")) == {"nightly": Did.UPDATED}
    deploy()
    deploy(nightly())
    assert (row().paused, row().cron, row().stale_since) == (True, "0 2 * * *", None)
    # A pause of the code's becomes an operator's by a second one.
    resume(row())
    deploy()
    overview.pause(row())
    deploy(nightly())
    assert row().paused


def test_what_left_the_code_is_paused_and_comes_back_without_what_it_missed(clock):
    deploy(nightly("0 * * * *"))
    assert deploy() == {"nightly": Did.STALE}
    gone = row()
    assert (gone.paused, gone.auto_paused, gone.stale_since is not None) == (True, True, True)
    assert deploy() == {"nightly": Did.SAME}
    clock.tick(timedelta(hours=5))
    assert deploy(nightly("0 * * * *")) == {"nightly": Did.RESUMED}
    back = row()
    assert (back.paused, back.stale_since, back.next_run) == (False, None, datetime(2032, 1, 31, 16, tzinfo=UTC))
    assert fire_schedules() == 0


def test_what_left_the_code_is_deleted_on_demand_only_unless_an_operator_resumed_it():
    deploy(nightly(), nightly(name="kept"))
    deploy()
    resume(row("kept"))
    assert deploy() == {"nightly": Did.SAME, "kept": Did.SAME}
    assert deploy(how={"prune": True}) == {"nightly": Did.PRUNED, "kept": Did.SAME}
    assert [each.name for each in Schedule.objects.all()] == ["kept"]
    # `update` and `save` resume it, too, and then the code does not own the pause any more.
    deploy(nightly())
    deploy()
    Schedule.objects.filter(name="nightly").update(paused=False)
    assert not row().auto_paused


def test_a_rename_is_a_new_schedule_and_the_old_one_is_paused():
    deploy(nightly())
    assert deploy(nightly(name="new")) == {"nightly": Did.STALE, "new": Did.INSERTED}
    assert (row().paused, row("new").paused) == (True, False)
    assert row("new").next_run == row().next_run


def test_enabled_false_makes_none_and_pauses_one_that_is_there():
    assert deploy(nightly(enabled=False)) == {"nightly": Did.SAME}
    assert Schedule.objects.count() == 0
    deploy(nightly())
    assert deploy(nightly(enabled=False)) == {"nightly": Did.PAUSED}
    # An operator resumes it all the same, and keeps the last word.
    resume(row())
    assert deploy(nightly(enabled=False)) == {"nightly": Did.SAME}
    assert not row().paused
    assert deploy(nightly()) == {"nightly": Did.SAME}
    deploy(nightly(enabled=False))
    assert deploy(nightly()) == {"nightly": Did.RESUMED}


# ------------------------------------------------------------------------------------------------- names and owners


def test_a_name_of_another_row_is_refused_and_adopted_on_demand():
    made = schedule(functions.note, "mine", name="nightly", cron="0 2 * * *")
    assert deploy(nightly()) == {"nightly": Did.TAKEN}
    assert row().args == ("mine",)
    assert deploy(nightly(), how={"adopt": True}) == {"nightly": Did.ADOPTED}
    assert (row().pk, row().args, row().source, row().next_run) == (made.pk, ("x",), "code", made.next_run)
    assert deploy(nightly()) == {"nightly": Did.SAME}


def test_projects_that_share_the_tables_leave_each_others_schedules_alone():
    deploy(nightly(), schedules_source="shop")
    assert deploy(nightly(name="b"), schedules_source="billing") == {"b": Did.INSERTED}
    assert not row().paused
    assert deploy(nightly(), schedules_source="billing")["nightly"] == Did.TAKEN


def test_an_older_release_does_nothing_by_itself_and_goes_back_on_demand():
    deploy(nightly("0 3 * * *"), release="2032.1.10")
    for older in ("2032.1.9", None):
        with override_settings(PGQ={"schedules": [nightly()], "release": older}):
            assert "2032.1.10" in sync(is_automatic=True).refused
    assert row().cron == "0 3 * * *"
    assert deploy(nightly(), release="2032.1.9") == {"nightly": Did.UPDATED}
    assert (row().cron, row().release) == ("0 2 * * *", "2032.1.9")
    with override_settings(PGQ={"schedules": [], "release": 100_000}):
        assert sync(is_automatic=True).changes[0].did is Did.STALE


def test_a_signature_by_an_old_key_is_renewed():
    deploy(nightly())
    Schedule.objects.update(signature=b"of an old key")
    assert deploy(nightly()) == {"nightly": Did.UPDATED}
    assert bytes(row().signature) != b"of an old key"
    # But never over what somebody else wrote.
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE pgq_schedule SET args = '["evil"]'""")
    before = bytes(row().signature)
    assert deploy(nightly()) == {"nightly": Did.SAME}
    assert bytes(row().signature) == before


def test_a_module_that_cannot_be_imported_takes_no_schedules_with_it(monkeypatch):
    deploy(nightly())
    monkeypatch.setitem(discovery.left_out, "tests.functions.common", "ImportError: x")
    assert deploy() == {"nightly": Did.SAME}
    assert not row().paused


# ------------------------------------------------------------------------------------------------- the command


def command(*arguments):
    """Run ``pgq_schedules sync``; return its exit code and what it printed."""
    out = io.StringIO()
    try:
        call_command("pgq_schedules", "sync", *arguments, stdout=out)
    except SystemExit as end:
        return end.code, out.getvalue()
    return 0, out.getvalue()


def test_the_command_shows_what_differs_and_check_says_so_by_its_exit_code():
    with override_settings(PGQ={"schedules": [nightly()]}):
        assert command("--check")[0] == 3
        code, out = command("--dry-run")
        assert (code, "nightly: inserted" in out, Schedule.objects.count()) == (0, True, 0)
        assert command()[0] == 0
        assert command("--check") == (0, "nightly: as it is\nThe schedules are as the code says.\n")
    with override_settings(PGQ={"schedules": [nightly("0 3 * * *")]}):
        [change] = json.loads(command("--dry-run", "--json")[1])["schedules"]
        assert (change["did"], change["fields"]) == ("updated", {"cron": ["0 2 * * *", "0 3 * * *"]})
        assert "cron" in command()[1]
    wrong = pytest.raises(CommandError, match=r'Nothing was synced: schedules\[0\] "nightly": cron: ')
    with override_settings(PGQ={"schedules": [nightly("0 99 * * *")]}), wrong:
        command()
    with pytest.raises(CommandError, match="sync takes no names"):
        call_command("pgq_schedules", "pause", "nightly", "--prune")
    out = io.StringIO()
    with override_settings(PGQ={}):
        command()
        call_command("pgq_schedules", stdout=out)
    assert "from      the code (code), which does not name it since" in out.getvalue()


def found(*schedules, **settings):
    """Return what pgq_check says of the schedules to one who has this code: the status, what was found, what to do."""
    with override_settings(PGQ={"schedules": list(schedules), **settings}):
        said = drift.finding()
    assert said.check == "code"
    return said.status, said.detail, said.advice


def test_pgq_check_says_in_what_the_rows_differ_from_the_code():
    names = ("left", "edited", "drift", "new code", "off")
    deploy(*(nightly(name=name) for name in names))
    assert found(*(nightly(name=name) for name in names)) == ("ok", "", "")
    for name in ("edited", "drift"):
        edited = row(name)
        edited.cron = "30 4 * * *"
        edited.save()
    overview.pause(row("off"))
    schedule(NOTE, "x", name="taken", cron="0 5 * * *")
    kept = [
        nightly(name="edited"),
        *(nightly("0 3 * * *", name) for name in ("drift", "new code")),
        nightly(name="off"),
    ]
    code = [*kept, nightly(name="taken"), nightly(name="never"), nightly(name="none", enabled=False)]
    status, detail, advice = found(*code)
    assert (status, detail) == (
        "warning",
        "3 not synced: new code, never, left; 1 refused, since the name is taken: taken; "
        "1 edited here and changed in the code since: drift; 1 edited by an operator: edited",
    )
    assert all(
        word in advice for word in ("pgq_schedules sync;", "--adopt", "--force", "Write the edits into the code")
    )

    deploy(*code)
    assert found(*code)[1] == (
        "1 refused, since the name is taken: taken; 1 edited here and changed in the code since: drift; "
        "1 edited by an operator: edited; 1 not in the code any more and paused: left"
    )
    # The sync finds the same, and after it has done all there is nothing to say.
    deploy(*code, how={"prune": True, "force": True, "adopt": True})
    assert found(*code) == ("ok", "", "")
    # Resumed by an operator, one that has left the code is theirs.
    deploy(*code[1:])
    assert found(*code[1:])[1] == "1 not in the code any more and paused: edited"
    resume(row("edited"))
    assert found(*code[1:]) == ("ok", "", "")
    many = [nightly(name=str(number)) for number in range(9)]
    assert "9 not synced: 0, 1, 2 and 6 more" in found(*code[1:], *many)[1]


def test_pgq_check_of_wrong_code_and_of_an_old_release():
    deploy(nightly("0 3 * * *"), release=2)
    assert found(nightly(), release=1) == ("ok", "release '2' wrote the schedules, and this is '1'", "")
    assert found(nightly(), release=3)[1] == "1 not synced: nightly"
    status, detail, advice = found(nightly("0 99 * * *"))
    assert (status, advice) == ("problem", "Correct them: manage.py check.")
    assert detail.startswith('1 wrong in the code: schedules[0] "nightly": cron: ')
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE pgq_test_looker; GRANT USAGE ON SCHEMA public TO pgq_test_looker")
        cursor.execute("GRANT SELECT (id, name) ON pgq_schedule TO pgq_test_looker; SET LOCAL ROLE pgq_test_looker")
        assert found(nightly(), release=3) == ("ok", "this role may not see what the schedules hold", "")
        cursor.execute("RESET ROLE")
