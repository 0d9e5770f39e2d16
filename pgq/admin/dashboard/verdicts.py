"""The verdict on a task in the reader's language. In English it is the sentence of pgq_why itself, which says most."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils.dateparse import parse_datetime
from django.utils.translation import get_language, gettext_lazy, ngettext
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.recurrence import moments
from pgq.status import why

_TEXTS: Mapping[str, Any] = {
    why.UNKNOWN: gettext_lazy(
        "There is no such task: its transaction has not committed, or was rolled back, or its result was not kept."
    ),
    why.SUCCEEDED: gettext_lazy("It succeeded %(stopped)s ago."),
    why.FAILED: gettext_lazy("It failed %(stopped)s ago, with %(exception)s."),
    why.RUNNING: gettext_lazy("It runs on %(pool)s (%(host)s, pid %(pid)s), attempt %(attempt)s."),
    why.CLAIMED: gettext_lazy(
        "It is claimed by a worker of %(pool)s (%(host)s, pid %(pid)s), which begins it, or has just ended it."
    ),
    why.STOPPING: gettext_lazy(
        "It is cancelled, and still runs on %(pool)s (%(host)s, pid %(pid)s): its worker was told to stop it."
    ),
    why.LOST: gettext_lazy(
        "It was claimed by a worker that is not heard of any more: it runs elsewhere once the lease has run out, which "
        "was renewed %(since)s ago."
    ),
    why.PARKED: gettext_lazy("It is parked, since it cannot run as it is: %(reason)s"),
    why.CANCELLED: gettext_lazy(
        "It is cancelled: the upkeep of a pool ends it as failed, without running it, within a second."
    ),
    why.UNKNOWN_FUNCTION: gettext_lazy(
        "The workers that claimed it do not know the function %(func)s: it is offered again for a while, and then "
        "parked. Does an older release still run?"
    ),
    why.TIME: gettext_lazy("It waits for its time, in %(run_after)s."),
    why.RETRY: gettext_lazy("Its next attempt begins in %(run_after)s: the last one failed."),
    why.DUE: gettext_lazy("Its time has come: upkeep makes it ready, once a second."),
    why.PAUSED: gettext_lazy("Its queue is paused: no worker claims from %(queue)s until it is resumed."),
    why.NO_POOL: gettext_lazy("No pool is running. Start one: manage.py pgq_worker."),
    why.UNSERVED: gettext_lazy(
        "No pool that runs serves its queue %(queue)s. Start one: manage.py pgq_worker --queues %(queue)s."
    ),
    why.BUSY: gettext_lazy(
        "It is ready, and the next one: %(busy)s of %(workers)s workers that serve the queue are busy."
    ),
    why.NEXT: gettext_lazy("It is ready, and the next one, and a worker is free."),
}
#: Said besides of a task that waits for something else, too.
_WAITING = frozenset({why.CANCELLED, why.OTHERS, why.UNKNOWN_FUNCTION, why.TIME, why.RETRY})


def sentence(verdict: why.Verdict) -> str:
    """Return the verdict as a sentence in the language of the request."""
    if (get_language() or "en").startswith("en"):
        return verdict.sentence
    facts = _Facts(verdict.facts)
    said = _longer(verdict.code, facts) or str(_TEXTS.get(verdict.code, "")) % facts
    return " ".join(filter(None, (said or verdict.sentence, _begins(facts), _blocked(verdict.code, facts))))


def _begins(facts: _Facts) -> str:
    if "eta_seconds" not in facts:
        return ""
    return _("It begins in about %s, at the present rate.") % widgets.ago(float(facts["eta_seconds"]))


class _Facts(dict[str, Any]):
    """What a verdict rests on, for texts: moments as how far they are from now; what is not known as a dash."""

    def __missing__(self, name: str) -> str:
        return display.EMPTY

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        moment = _moment(value) if name in ("stopped", "since", "run_after", "not_before") else None
        if moment is not None:
            return widgets.ago(abs((moments.aware(moment) - moments.now()).total_seconds()))
        return display.EMPTY if value is None else value


def _moment(value: Any) -> datetime | None:
    try:
        return parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _longer(code: str, facts: _Facts) -> str:
    """Return the sentences that are put together."""
    if code == why.OTHERS:
        number = int(facts["remaining"])
        return ngettext(
            "It waits for %(count)d other task to end.", "It waits for %(count)d other tasks to end.", number
        ) % {"count": number}
    if code == why.BEHIND:
        ahead = int(facts["ahead"]) + int(facts["ahead_elsewhere"])
        return ngettext(
            "It is ready, behind %(count)d other task; %(busy)s of %(workers)s workers that serve the queue are busy.",
            "It is ready, behind %(count)d other tasks; %(busy)s of %(workers)s workers that serve the queue are busy.",
            ahead,
        ) % {"count": ahead, "busy": facts["busy"], "workers": facts["workers"]}
    return _held(facts) if code == why.HELD else ""


def _held(facts: _Facts) -> str:
    if "before" in facts:
        return _("It is ready, and held by the strict order of its key %(key)s: %(before)s goes before it.") % facts
    by_key = facts["limit"] == "key"
    whose = _("its key %(key)s") % facts if by_key else _("its queue %(queue)s") % facts
    full = facts.get("concurrency") is not None and (facts.get("limited") or 0) >= facts.get("concurrency", 0)
    if full:
        how = _("%(limited)s of %(concurrency)s run.") % facts
    elif facts.get("not_before"):
        how = _("the next may start in %(not_before)s.") % facts
    else:
        how = _("none may start.")
    return _("It is ready, and held by the limit of %(whose)s: %(how)s") % {"whose": whose, "how": how}


def _blocked(code: str, facts: _Facts) -> str:
    if code not in _WAITING:
        return ""
    if facts.get("paused"):
        return _("Its queue %(queue)s is paused.") % facts
    return "" if facts.get("pools") else _("No pool that runs serves its queue %(queue)s.") % facts
