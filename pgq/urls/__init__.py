"""REST over pgq's tables: ``path("pgq/", include("pgq.urls"))``.

All of it is closed unless a login with the right permissions, or a token with the right scope, opens it: see
docs/rest.md.
"""

from __future__ import annotations

from pgq.urls import bulk, machines, overview, schedules, tasks
from pgq.urls.endpoint import patterns

__all__ = ["app_name", "urlpatterns"]

# Each module declares its endpoints when it is imported.
assert bulk
assert machines
assert overview
assert schedules
assert tasks

app_name = "pgq"
urlpatterns = patterns()
