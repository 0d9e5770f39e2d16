"""What should hold and does not, with what to do; and the tables and the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html
from django.utils.translation import gettext as _

from pgq.admin import display
from pgq.admin.dashboard import widgets
from pgq.admin.dashboard.overview import badge
from pgq.admin.dashboard.visit import Visit
from pgq.admin.dashboard.widgets import Block
from pgq.status import findings
from pgq.store import statistics as store
from pgq.store.overview import Finding
from pgq.tasks.all_findings import all_findings

_ORDER = (findings.PROBLEM, findings.WARNING, findings.OK)


def build(visit: Visit) -> list[Block]:
    """Return the parts of the page."""
    return [
        visit.block(_("Checks"), all_findings, _checks, note=_("The same as manage.py pgq_check; it only reads.")),
        visit.block(_("Tables"), store.table_statistics, _tables, size="half"),
        visit.block(_("Server"), store.server, _server, size="half"),
    ]


def _checks(found: Sequence[Finding]) -> Any:
    rows = [
        (
            finding.check,
            badge(finding.status),
            format_html(
                "{}{}",
                finding.detail or display.EMPTY,
                format_html('<pre class="pgq-value">{}</pre>', finding.advice) if finding.advice else "",
            ),
        )
        for finding in sorted(found, key=lambda finding: _ORDER.index(finding.status))
    ]
    return widgets.table((_("check"), _("status"), _("what was found, and what to do")), rows)


def _tables(found: Sequence[store.TableStatistics]) -> Any:
    rows = [
        (
            table.table
            if table.parts == 1
            else _("%(name)s, %(parts)d parts") % {"name": table.table, "parts": table.parts},
            filesizeformat(table.bytes),
            f"~{table.living_rows:,}",
            f"~{table.dead_rows:,}",
            widgets.when(table.vacuumed),
        )
        for table in sorted(found, key=lambda table: -table.bytes)
    ]
    return widgets.table((_("table"), _("size"), _("rows"), _("dead"), _("vacuumed")), rows, numbers=(1, 2, 3))


def _server(server: store.Server) -> Any:
    return widgets.facts(
        [
            (_("PostgreSQL"), server.version),
            (_("database"), f"{server.database}, {filesizeformat(server.size)}"),
            (
                _("connections"),
                widgets.meter(
                    server.connections, server.max_connections, f"{server.connections} / {server.max_connections}"
                ),
            ),
            (_("idle in a transaction"), server.idle_in_transaction),
            (_("standby"), _("yes: it can only be read") if server.standby else _("no")),
            ("synchronous_commit", server.synchronous_commit),
            ("fsync", server.fsync),
            ("autovacuum", server.autovacuum),
        ]
    )
