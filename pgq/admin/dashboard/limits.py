"""The limits: what they hold, who set them; and setting and dropping them while pools run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import Http404
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.admin.dashboard.acts import Act, Done, Question
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.errors import EnqueueError
from pgq.ground.limits import Rate
from pgq.status.snapshot import up_to
from pgq.store import limits as store
from pgq.store.limits import LimitState
from pgq.tasks.limits import drop_limit, set_limit

#: Limits of the page; tasks and strands counted of each.
_SHOWN, _COUNTED = 200, 1_000


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page."""
    links = [(_("Set a limit…"), visit.address("new_limit"))] if visit.may("change_limit") else []
    note = _(
        "What an operator sets, code leaves as it is. A limit of a key holds for each key that begins with its name."
    )
    return [
        visit.block(
            _("Limits"),
            lambda cursor: store.limits(cursor, most=_SHOWN, bound=_COUNTED),
            lambda found: _table(visit, found),
            links=links,
            note=note,
        )
    ]


def _table(visit: Visit, found: Sequence[LimitState]) -> SafeString:
    rows = [
        (
            widgets.join(display.cut(limit.name, 60), _badge(limit)),
            _("each key") if limit.scope == "key" else _("queue"),
            "-" if limit.concurrency is None else f"{limit.concurrency:,}",
            _rate(limit),
            _("strict") if limit.strict else "-",
            up_to(limit.running, _COUNTED),
            up_to(limit.ready, _COUNTED),
            _("an operator") if limit.pinned else _("code"),
            widgets.when(limit.updated_at),
            _links(visit, limit),
        )
        for limit in found
    ]
    headings = (
        _("name"),
        _("of"),
        _("at a time"),
        _("rate"),
        _("order"),
        _("running"),
        _("ready"),
        _("set by"),
        _("since"),
        "",
    )
    shown: SafeString = widgets.table(headings, rows, empty=_("There is none."), numbers=(2, 5, 6))
    return shown


def _badge(limit: LimitState) -> Any:
    return display.badge("paused", _("holds all")) if 0 in (limit.concurrency, limit.rate) else ""


def _rate(limit: LimitState) -> str:
    if limit.rate is None:
        return "-"
    words = _("%(rate)s in %(period)s s, smooth") if limit.smooth else _("%(rate)s in %(period)s s")
    return words % {"rate": f"{limit.rate:,}", "period": _exact(limit.period)}


def _exact(value: float | None) -> str:
    """Return a number as a field of a form takes it: all its digits, and none behind a point where there is nothing."""
    return f"{value:.15g}"


def _links(visit: Visit, limit: LimitState) -> SafeString:
    links = []
    if visit.may("change_limit"):
        links.append(visit.link(_("Set…"), "set_limit", limit.scope, limit.name))
    if visit.may("delete_limit"):
        links.append(visit.link(_("Drop…"), "drop_limit", limit.scope, limit.name))
    return widgets.join(*(format_html("{} ", link) for link in links))


# ------------------------------------------------------------------------------------------------- what is done


def _known(visit: Visit, scope: str, name: str) -> LimitState | None:
    """Return the limit as it is; None: there is none."""
    if scope not in ("key", "queue") or "\0" in name:
        raise Http404
    seen = visit.look("limit", lambda cursor: store.limits(cursor, most=_SHOWN, bound=1, scope=scope, name=name))
    return seen.value[0] if seen.value else None


def _ask_new(visit: Visit) -> Question:
    name = widgets.join(
        _field(_("of"), _choice("scope", {"key": _("each key that begins with it"), "queue": _("a queue")}, "key")),
        _field(_("name"), format_html('<input name="name" required maxlength="{}">', 500)),
    )
    return Question(_("Set a limit?"), visit.address("limits"), widgets.join(name, _fields(None)))


def _ask_set(visit: Visit, scope: str, name: str) -> Question:
    text = _("Set the limit of the queue %s?") if scope == "queue" else _("Set the limit of each key of %s?")
    return Question(text % name, visit.address("limits"), _fields(_known(visit, scope, name)))


def _fields(limit: LimitState | None) -> SafeString:
    def number(name: str, value: float | None, step: str, least: str) -> SafeString:
        return format_html(
            '<input type="number" name="{}" min="{}" step="{}" value="{}">',
            name,
            least,
            step,
            "" if value is None else _exact(value),
        )

    smooth = format_html('<input type="checkbox" name="smooth"{}>', " checked" if limit and limit.smooth else "")
    order = "strict" if limit and limit.strict else "fifo"
    return widgets.join(
        _field(
            _("at a time (0 holds all; empty: any number)"),
            number("concurrency", limit.concurrency if limit else None, "1", "0"),
        ),
        _field(_("starts (0 holds all; empty: any number)"), number("rate", limit.rate if limit else None, "1", "0")),
        _field(_("in any time of so many seconds"), number("period", limit.period if limit else None, "any", "0.001")),
        _field(_("spread over that time"), smooth),
        _field(_("order of a key"), _choice("order", {"fifo": _("failures step aside"), "strict": _("strict")}, order)),
    )


def _field(label: Any, field: Any) -> SafeString:
    return format_html("<p><label>{} {}</label></p>", label, field)


def _choice(name: str, options: dict[str, Any], chosen: str) -> SafeString:
    shown = widgets.join(
        *(
            format_html('<option value="{}"{}>{}</option>', value, " selected" if value == chosen else "", text)
            for value, text in options.items()
        )
    )
    return format_html('<select name="{}">{}</select>', name, shown)


def _given(visit: Visit, name: str) -> str:
    return str(visit.request.POST.get(name, "")).strip()


def _number(visit: Visit, name: str, kind: type[int] | type[float]) -> Any:
    text = _given(visit, name)
    try:
        return kind(text) if text else None
    except ValueError:
        raise EnqueueError(name, f"must be a number, got {text[:50]!r}") from None


def _set(visit: Visit, scope: str, name: str) -> Done:
    concurrency, rate = _number(visit, "concurrency", int), _number(visit, "rate", int)
    period, smooth, order = _number(visit, "period", float), bool(_given(visit, "smooth")), _given(visit, "order")
    if (rate is None) != (period is None):
        raise EnqueueError(
            "period" if period is None else "rate", "a rate is a number of starts and a number of seconds"
        )
    if order not in ("", "fifo", "strict"):
        raise EnqueueError("order", f"must be 'fifo' or 'strict', got {order[:50]!r}")
    set_limit(
        name,
        concurrency=concurrency,
        rate=None if rate is None else Rate(rate, period, smooth=smooth),
        order=order or None,  # type: ignore[arg-type]  # looked at above
        scope=scope,  # type: ignore[arg-type]  # `set_limit` looks at it
    )
    facts = {
        "scope": scope,
        "name": name,
        "concurrency": concurrency,
        "rate": rate,
        "period": period,
        "smooth": smooth,
        "order": order,
    }
    given = {
        key: value for key, value in facts.items() if key not in ("scope", "name") and value not in (None, False, "")
    }
    told = ", ".join(f"{key} {value}" for key, value in given.items()) or _("it only tells the order")
    text = _("The limit of the %(scope)s %(name)s is set: %(told)s.") % {"scope": scope, "name": name, "told": told}
    return Done(text, f"{scope}:{name}"[:200], name, visit.address("limits"), facts=facts)


def _set_new(visit: Visit) -> Done:
    return _set(visit, _given(visit, "scope"), _given(visit, "name"))


def _ask_drop(visit: Visit, scope: str, name: str) -> Question:
    if _known(visit, scope, name) is None:
        raise Http404
    text = _("Drop the limit of %s? What it holds may start at once. A worker that starts sets what the code gives.")
    return Question(text % name, visit.address("limits"))


def _drop(visit: Visit, scope: str, name: str) -> Done:
    there = drop_limit(name, scope=scope)  # type: ignore[arg-type]  # `drop_limit` looks at it
    text = _("The limit of the %(scope)s %(name)s is dropped.") % {"scope": scope, "name": name}
    facts = {"scope": scope, "name": name}
    return Done(text if there else "", f"{scope}:{name}"[:200], name, visit.address("limits"), facts=facts)


SET, DROP = gettext_lazy("Set limit"), gettext_lazy("Drop limit")
ACTS = (
    Act("new_limit", "limits/new/", ("change_limit",), SET, _ask_new, _set_new),
    Act("set_limit", "limits/<str:scope>/<str:name>/set/", ("change_limit",), SET, _ask_set, _set),
    Act("drop_limit", "limits/<str:scope>/<str:name>/drop/", ("delete_limit",), DROP, _ask_drop, _drop),
)
