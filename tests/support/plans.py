"""What a plan did when it was run: rows, pages, locks."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql

# Of this transaction and the savepoints in it, which are younger.
LOCKED = "SELECT count(*) FROM pgq_queue WHERE xmax::text::bigint >= pg_current_xact_id()::text::bigint"


class Explained:
    """A plan as it was run."""

    def __init__(self, plan: dict[str, Any], locked: int) -> None:
        #: Rows of the queue that it locked, updated or not. (Those a plan counts are rounded for each loop.)
        self.locked = locked
        self.buffers: int = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        self.nodes: list[dict[str, Any]] = []
        lines: list[str] = []
        self._walk(plan["Plan"], 0, lines)
        self.text = "\n".join(lines)

    def _walk(self, node: dict[str, Any], depth: int, lines: list[str]) -> None:
        self.nodes.append(node)
        where = node.get("Index Name") or node.get("Relation Name") or node.get("CTE Name") or ""
        pages = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        lines.append(f"{'  ' * depth}{node['Node Type']} {where}: {node['Actual Rows']} rows, {pages} pages")
        for child in node.get("Plans", []):
            self._walk(child, depth + 1, lines)

    def relations(self, kind: str) -> set[str]:
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == kind and "Relation Name" in node}

    def rows_of(self, kind: str) -> int:
        return sum(
            round(node["Actual Rows"] * node["Actual Loops"]) for node in self.nodes if node["Node Type"] == kind
        )

    @property
    def rows(self) -> int:
        return round(self.nodes[0]["Actual Rows"])


def explain(database: psycopg.Connection[Any], mode: str, statement: str, parameters: dict[str, Any]) -> Explained:
    """Run a statement as a prepared one, with that kind of plan, and return what it did; it is rolled back."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    prepared = statement.replace("%%", "%")
    for number, name in enumerate(names, 1):
        prepared = prepared.replace(f"%({name})s", f"${number}")
    values = sql.SQL(", ").join(sql.Literal(parameters[name]) for name in names)
    execute = sql.SQL("EXECUTE explained({})").format(values) if names else sql.SQL("EXECUTE explained")
    database.execute(f"PREPARE explained AS {prepared}")
    try:
        with database.transaction(force_rollback=True):
            database.execute(sql.SQL("SET LOCAL plan_cache_mode = {}").format(sql.Literal(f"force_{mode}_plan")))
            database.execute("SELECT pg_current_xact_id()")
            row = database.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + execute).fetchone()
            locked = database.execute(LOCKED).fetchone()
    finally:
        database.execute("DEALLOCATE explained")
    assert row is not None
    assert locked is not None
    return Explained(row[0][0], locked[0])
