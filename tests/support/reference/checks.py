"""Write docs/reference/checks.md: the checks of ``manage.py check``, and the findings of ``manage.py pgq_check``.

Both are read where they are made: ids, levels, texts and hints from the calls in pgq/, statuses and advice from the
function in migrations_sql.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pgq
from pgq.schedules import drift
from pgq.store import schema
from tests.support.reference.docstrings import capital, table

_HEAD = """\
# Checks

Two kinds. `manage.py check` looks at the **settings and the code**, before anything runs; so do `runserver`,
`migrate` and the tests. `manage.py pgq_check` looks at the **running system**: tables, pools, queues. In texts, `…`
stands for what differs from case to case. More of what to do: [troubleshooting.md](../operate/troubleshooting.md).
"""
_SYSTEM = """\
## System checks

`manage.py check`; those about the tables with `--database default` alone, and by `migrate`. An error stops commands
that check (`SILENCED_SYSTEM_CHECKS` silences an id). `pgq_worker` does not run them, so that a pool starts while
PostgreSQL is away: a deploy runs `manage.py check --deploy --database default` or `pgq_worker --check-config` before.
"""
_FINDINGS = """\
## Findings of a running system

`manage.py pgq_check`, `SELECT * FROM pgq_check()`, the page *Doctor* of the dashboard, `GET v1/doctor` of REST, and
once a minute upkeep, which keeps the last result in `pgq_finding` (the metric `pgq_check_status`). A *problem* is
that tasks do not run, or that an invariant is broken; a *warning* is what will hurt. It only reads, within bounds;
what is read in growing steps looks for a tenth of a second and says how far it came.
"""
_ANY = """\
Any of them may be a problem with the detail `could not be checked: a table of pgq is locked` (then see `locks`), or a
warning with `could not be checked: …` where the role may not see what the check needs (see `rights`).
"""
_BY_COMMAND = """\
Only `manage.py pgq_check` has these, since they need the project's code, or more than one database:
"""


#: Texts that come from elsewhere as a whole.
_WHOLE = {
    "pgq.E001": "`KEY`: what is wrong with it",
    "pgq.W001": "`KEY`: what has no effect here, or may not be meant",
    "pgq.E020": "`TASKS[…]['OPTIONS']`: no such option, and the nearest one",
    "pgq.E021": "`TASKS[…]['OPTIONS']`: what is wrong with a value",
    "pgq.E023": "`TASKS[…]['OPTIONS']`: the queue lies in another database",
    "pgq.E110": "the schedule, its place in the code, and what is wrong",
    "pgq.W110": "the schedule, its place in the code, and what may not be meant",
    "pgq.W004": "the module of tasks, and the error of its import",
}
#: The same of what to do.
_HINTS = {
    "pgq.E001": "The message says it: it names the key, and what it may be.",
    "pgq.W001": "The message says it: most keys can be taken away.",
    "pgq.W002": "Run `manage.py migrate pgq`, with `--database` if it is not the default one.",
    "pgq.W005": "Give the dotted path of a function, or remove it; an `error_reporter`: install its package.",
    "pgq.W110": "The message says it.",
}


@dataclass(frozen=True)
class Check:
    """A message of a system check, as it stands in the source."""

    id: str
    level: str
    text: str
    hint: str


def written() -> str:
    """Return the page as it should be."""
    rows = [(f"`{one.id}` {one.level}", one.text, one.hint) for one in system_checks()]
    found = [(f"`{one.name}` {one.status}", one.when, one.advice) for one in findings()]
    return "\n".join(
        [
            _HEAD,
            _SYSTEM,
            table(("id", "text", "what to do"), *rows),
            _FINDINGS,
            table(("check", "is not content when", "what to do"), *found),
            _ANY,
            _BY_COMMAND,
            table(("check", "is not content when", "what to do"), *_of_command()),
        ]
    )


# ------------------------------------------------------------------------------------------------- system checks


def system_checks() -> list[Check]:
    """Return each message, by id."""
    found: list[Check] = []
    for file in sorted(Path(pgq.__file__).parent.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                found += _in_function(function)
    return sorted(dict.fromkeys(found), key=lambda one: (one.id, one.text))


def _in_function(function: ast.FunctionDef) -> Iterator[Check]:
    known: dict[str, ast.expr] = {}
    for node in _in_order(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = node.value
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        id = given.get("id")
        if isinstance(id, ast.Constant) and str(id.value).startswith("pgq."):
            level = node.func.attr.lower()
            text, hint = _text(node.args[0], known), _text(given.get("hint"), known)
            yield Check(str(id.value), level, _WHOLE.get(str(id.value), text), _HINTS.get(str(id.value), hint))


def _in_order(function: ast.FunctionDef) -> list[ast.AST]:
    nodes = [node for node in ast.walk(function) if hasattr(node, "lineno")]
    return sorted(nodes, key=lambda node: (node.lineno, node.col_offset, isinstance(node, ast.Call)))


def _text(node: ast.expr | None, known: dict[str, ast.expr]) -> str:
    """Return a text of the source with … for what it fills in."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        return f"{node.value}"
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(each, known) for each in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.IfExp):
        return _text(node.value, known)
    if isinstance(node, ast.IfExp):
        return _text(node.body, known) or _text(node.orelse, known)
    if isinstance(node, ast.Name) and node.id in known:
        return _text(known[node.id], {name: value for name, value in known.items() if name != node.id})
    return "…"


# ------------------------------------------------------------------------------------------------- findings


@dataclass(frozen=True)
class Finding:
    """A check of pgq_check(): what its part of the function says."""

    name: str
    status: str
    when: str
    advice: str


def findings() -> list[Finding]:
    """Return the checks of the SQL function, in its order."""
    source = _function()
    names = re.findall(r"'(\w+)'", re.search(r"FOREACH name IN ARRAY ARRAY\[(.*?)\]", source, re.DOTALL)[1])  # type: ignore[index]
    parts = dict(re.findall(r"^ {12}WHEN '(\w+)' THEN\n(.*?)(?=^ {12}(?:--|WHEN|END CASE))", source, re.DOTALL | re.M))
    whens = {
        name: " ".join(line.strip().removeprefix("--").strip() for line in said.splitlines())
        for said, name in re.findall(r"((?:^ {12}-- .*\n)+)^ {12}WHEN '(\w+)' THEN", source, re.M)
    }
    return [Finding(name, _statuses(parts[name]), whens.get(name, ""), _advice(parts[name])) for name in names]


def _function() -> str:
    texts = [file.read_text(encoding="utf-8") for file in sorted(schema.directory().glob("*.up.sql"))]
    found = [text for text in texts if "CREATE OR REPLACE FUNCTION pgq_check(" in text]
    # A later file may replace it.
    return (
        found[-1].partition("CREATE OR REPLACE FUNCTION pgq_check(")[2].partition("\nCOMMENT ON FUNCTION pgq_check")[0]
    )


def _statuses(part: str) -> str:
    found = re.findall(r"'(problem|warning)'", "\n".join(re.findall(r"status := [^;]*", part)))
    return " or ".join(dict.fromkeys(found))


def _advice(part: str) -> str:
    """Return the texts that the part assigns to `advice`, each with … for what it fills in."""
    said = [_branches(found) for found in re.findall(r"advice := ((?:[^;']|'(?:[^']|'')*')*);", part)]
    return " Or: ".join(dict.fromkeys(text for text in said if text))


def _branches(expression: str) -> str:
    """Return the text of an expression: what stands in the branches of a CASE, and what is filled in as …."""
    text = ""
    for quoted, word in re.findall(r"'((?:[^']|'')*)'|(\bELSE\b|\bWHEN\b[^']*?\bTHEN\b|\bEND\b|\|\| \w+)", expression):
        if quoted:
            text += re.sub(r"%[sLI]", "…", quoted.replace("''", "'")).replace("%%", "%")
        elif word.startswith("||"):
            text += "…"
        elif text and word != "END":
            text += " Or: "
    return text


def _of_command() -> list[tuple[str, ...]]:
    code = " ".join(f"*{kind}*: {advice}" for kind, advice in drift._ADVICE.items())
    rows = [
        ("code", "warning or problem", "the table of schedules differs from the schedules in code", code),
        (
            "limits",
            "warning",
            "limits that code gave, and does not give any more, are still in the table",
            "Drop each: `drop_limit(name, scope=...)`, or the dashboard's page of limits. To keep one, set it there: "
            "then it is an operator's.",
        ),
        (
            "places",
            "warning",
            "with several databases: tasks lie in a database that `PGQ['databases']` does not give their queue",
            "They are run there, by a pool that serves all queues of that database. It is so after a queue has moved.",
        ),
        (
            "database",
            "problem",
            "with several databases: one of them does not answer",
            "Its queues wait until it is back; those of the other databases do not.",
        ),
    ]
    return [(f"`{name}` {status}", capital(when), advice) for name, status, when, advice in rows]
