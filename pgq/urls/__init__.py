"""REST over pgq's tables: ``path("pgq/", include("pgq.urls"))``.

All of it is closed unless a login with the right permissions, or a token with the right scope, opens it: see
docs/reference/rest.md.
"""

from __future__ import annotations

from pgq.urls import bulk, flows, history, machines, overview, prometheus, schedules, tasks
from pgq.urls.endpoint import ENDPOINTS, patterns

__all__ = ["app_name", "urlpatterns"]

# Each module declares its endpoints when it is imported.
assert bulk
assert flows
assert history
assert machines
assert overview
assert prometheus
assert schedules
assert tasks

#: The namespace of the names of routes: ``reverse("pgq:...")``.
app_name = "pgq"
#: What ``include`` takes.
urlpatterns = patterns(ENDPOINTS)
