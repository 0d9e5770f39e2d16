"""A view for probes. Put it into your urls::

    from pgq.health import health

    urlpatterns = [path("health", health), ...]

200 ``{"status": "ok"}``, or 503 ``{"status": "problem"}`` while tasks are not run as they should be, or PostgreSQL
does not answer. With several databases it tells how each is: ``{"status": "problem", "databases": {"default": "ok",
"second": "away"}}``. The view needs no login, so it tells no more; `manage.py pgq_check` names what is wrong and what
to do. It checks all pools together; ``pgq_worker --health-port`` answers for one pool.
"""

from __future__ import annotations

import psycopg
from django.db import Error, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from pgq.conf import asked, get_settings
from pgq.status import databases, findings
from pgq.store.bounded import reading

__all__ = ["health"]

#: Seconds that a statement may take: who asks needs no login.
PATIENCE = 2.0


@never_cache
@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Answer a probe."""
    if len(asked()) > 1:
        return _of_several()
    try:
        with reading(get_settings().database, seconds=PATIENCE) as cursor:
            status = findings.overall(findings.findings(cursor))
    except (Error, psycopg.Error):
        status = findings.PROBLEM
    if status == findings.PROBLEM:
        return JsonResponse({"status": "problem"}, status=503)
    return JsonResponse({"status": "ok"})


def _of_several() -> HttpResponse:
    seen = databases.look(lambda alias, cursor: findings.overall(findings.findings(cursor)), "pgq health")
    states = {
        alias: "away" if isinstance(found, databases.Away) else "problem" if found == findings.PROBLEM else "ok"
        for alias, found in seen.items()
    }
    status = "ok" if set(states.values()) == {"ok"} else "problem"
    return JsonResponse({"status": status, "databases": states}, status=200 if status == "ok" else 503)


for _alias in connections:
    # Whatever ATOMIC_REQUESTS says: to begin a transaction fails while that database is away.
    transaction.non_atomic_requests(using=_alias)(health)
# A probe has no account (LoginRequiredMiddleware).
health.login_required = False  # type: ignore[attr-defined]
