"""What an operator does from the dashboard: asked first, done by POST, each with its own permission, and logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq import signals
from pgq.admin import display
from pgq.errors import PgqError
from pgq.ground import ids
from pgq.models import Dashboard, QueuedTask, Task
from pgq.tasks import control

if TYPE_CHECKING:
    from pgq.admin.dashboard.site import DashboardAdminMixin
    from pgq.admin.dashboard.visit import Visit


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before it is done."""

    text: Any
    #: Where "no" leads, and where the act returns to.
    back: str
    body: Any = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of it."""

    #: For the user and for the log; "": nothing was done.
    text: str
    #: What it was done to: for the log.
    object_id: str
    object_name: str
    back: str
    #: Said besides.
    notes: Sequence[str] = ()
    #: For receivers of the signal: what was done to which, and to how many.
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Act:
    """Something to do."""

    name: str
    route: str
    #: Codenames of pgq's permissions, all of which it takes.
    needs: tuple[str, ...]
    label: Any
    ask: Callable[..., Question]
    do: Callable[..., Done]


def perform(admin: DashboardAdminMixin, visit: Visit, act: Act, given: dict[str, str]) -> HttpResponseRedirect:
    """Do it, log it, tell it."""
    request = visit.request
    try:
        done = act.do(visit, **given)
    except PgqError as error:
        # What is refused for a reason that the user can read.
        admin.message_user(request, display.cut(str(error), 500), messages.ERROR)
        return HttpResponseRedirect(act.ask(visit, **given).back)
    if done.text:
        log(request, act.name, done)
        admin.message_user(request, done.text, messages.SUCCESS)
    else:
        admin.message_user(request, _("Nothing was done: it has changed meanwhile."), messages.WARNING)
    for note in done.notes:
        admin.message_user(request, note, messages.WARNING)
    return HttpResponseRedirect(done.back)


def log(request: HttpRequest, action: str, done: Done) -> None:
    """Write it into Django's log, and tell the receivers of `operator_action`."""
    LogEntry.objects.create(
        user_id=cast("int", request.user.pk),
        content_type_id=ContentType.objects.get_for_model(Dashboard, for_concrete_model=False).pk,
        object_id=done.object_id,
        object_repr=display.cut(done.object_name, 200),
        action_flag=CHANGE,
        change_message=done.text,
    )
    signals.send(
        signals.operator_action,
        action=action,
        user=request.user,
        object=done.object_id,
        text=done.text,
        facts=done.facts,
    )


# ------------------------------------------------------------------------------------------------- queues


def _ask_pause(visit: Visit, name: str) -> Question:
    text = _(
        "Pause the queue %s? No worker claims from it until it is resumed; running tasks finish, enqueuing goes on."
    )
    return Question(text % name, visit.address("queue", name))


def _pause(visit: Visit, name: str) -> Done:
    control.pause(name)
    return Done(_("Queue %s is paused.") % name, name, name, visit.address("queue", name), facts={"queue": name})


def _ask_resume(visit: Visit, name: str) -> Question:
    return Question(_("Resume the queue %s? Workers claim from it again at once.") % name, visit.address("queue", name))


def _resume(visit: Visit, name: str) -> Done:
    control.resume(name)
    return Done(_("Queue %s is resumed.") % name, name, name, visit.address("queue", name), facts={"queue": name})


# ------------------------------------------------------------------------------------------------- one task


def _id(id: str) -> str:
    found = ids.parse_id(id)
    if found is None:
        raise Http404
    return found.hex


def _task_question(text: Any) -> Callable[..., Question]:
    def ask(visit: Visit, id: str) -> Question:
        id = _id(id)
        return Question(text % {"task": f"{display.named(None, id)} ({id})"}, visit.address("task", id))

    return ask


def _retry(visit: Visit, id: str) -> Done:
    """Run a finished task again. The row is locked first: by the same function a queued one would be run now."""
    return _again(visit, _id(id), Task.objects.using(visit.alias))


def _run_now(visit: Visit, id: str) -> Done:
    """Make a queued task ready. The row is locked first: by the same function a finished one would be run again."""
    return _again(visit, _id(id), QueuedTask.objects.using(visit.alias))


def _again(visit: Visit, id: str, rows: QuerySet[Any]) -> Done:
    with transaction.atomic(using=visit.alias):
        there = rows.filter(pk=id).order_by().select_for_update().values_list("pk").exists()
        text = _("It is in the queue, and runs as soon as a worker is free.") if there and control.retry(id) else ""
    return Done(text, id, display.named(None, id), visit.address("task", id), facts={"task": id})


def _cancel(visit: Visit, id: str) -> Done:
    id = _id(id)
    became = control.cancel(id)
    text = {"queued": _("It is cancelled, and will not run."), "running": _("Its worker was told to stop it.")}.get(
        became, ""
    )
    return Done(text, id, display.named(None, id), visit.address("task", id), facts={"task": id, "became": became})


ACTS: list[Act] = [
    Act("pause", "queues/<str:name>/pause/", ("pause_queue",), gettext_lazy("Pause queue"), _ask_pause, _pause),
    Act("resume", "queues/<str:name>/resume/", ("pause_queue",), gettext_lazy("Resume queue"), _ask_resume, _resume),
    Act(
        "retry",
        "task/<str:id>/retry/",
        ("retry_task",),
        gettext_lazy("Run again"),
        _task_question(gettext_lazy("Run %(task)s again? Its result goes when it is put back into the queue.")),
        _retry,
    ),
    Act(
        "run_now",
        "task/<str:id>/run/",
        ("run_queuedtask",),
        gettext_lazy("Run now"),
        _task_question(gettext_lazy("Make %(task)s ready now? If it is parked, workers look at it again.")),
        _run_now,
    ),
    Act(
        "cancel",
        "task/<str:id>/cancel/",
        ("cancel_queuedtask",),
        gettext_lazy("Cancel"),
        _task_question(
            gettext_lazy(
                "Cancel %(task)s? If it runs, it is interrupted. It ends as a failed task, which can be run again, and "
                "whatever waits for it hears of it."
            )
        ),
        _cancel,
    ),
]
