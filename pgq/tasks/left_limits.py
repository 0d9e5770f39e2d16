"""Which limits in the table were given by code and are not given any more, for `pgq_check`. It only reads.

Workers write the limits of the code when they start, and drop none: while a release is rolled out, the old one still
gives its limits.
"""

from __future__ import annotations

from pgq.conf import get_settings
from pgq.enqueue.keys import limits_in_code
from pgq.models import Limit
from pgq.store.overview import Finding

CHECK = "limits"
#: So many names are told.
_TOLD = 3


def finding() -> Finding:
    """Compare the table of the database at hand with what the settings and the imported functions give.

    Raises:
        django.db.Error: PostgreSQL is gone, or the tables are missing.
    """
    settings = get_settings()
    given = {(limit.scope, limit.name) for limit in limits_in_code(settings)}
    # What an operator has set is theirs, whatever the code says.
    rows = Limit.objects.using(settings.database).filter(pinned=False).order_by("scope", "name")
    left = [row for row in rows.values_list("scope", "name")[:1000] if row not in given]
    if not left:
        return Finding(CHECK, "ok", "", "")
    more = f" and {len(left) - _TOLD} more" if len(left) > _TOLD else ""
    told = ", ".join(f"{scope} {name}" for scope, name in left[:_TOLD]) + more
    scope, name = left[0]
    return Finding(
        CHECK,
        "warning",
        f"limits that code gave, and none of what is imported here gives: {told}",
        f"They hold until they are dropped: drop_limit({name!r}, scope={scope!r}), or the dashboard's page of limits. "
        "To keep one, set it: then it is an operator's.",
    )
