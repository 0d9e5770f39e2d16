"""Statements: each file of pgq/sql is executed by one function of its name, and no other module speaks SQL."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import pgq
from pgq.store import statement

PACKAGE = Path(pgq.__file__).parent
FILES = {file.stem: file for file in (PACKAGE / "store" / "sql").rglob("*.sql")}
#: Executed by a function of another name.
OTHERS = {
    ("enqueue_calls", "_copy"): "with keys or without",
    ("prune_per", "prune"): "how much is kept is counted over all, or by name: which of the two, an argument says",
    ("clean_count", "clean"): "a dry run counts what the real one would delete",
    ("kept_places", "with_places"): "a part of the statements that make claimed tasks ready again",
    ("lanes_with_room", "choose"): "a part of that statement",
    ("new_strands", "claim_keyed"): "a part of that statement",
    ("budget", "claim_keyed"): "a part of that statement",
    ("positions", "marks"): "it reads more than positions",
    ("stray_keyed", "sweep_keyed"): "reads, so that no lane is locked in vain",
    ("mend_keyed", "sweep_keyed"): "needs a snapshot of its own",
    ("make_keyed", "sweep_keyed"): "a statement may not update a lane twice",
    ("lock_keyed", "advance_keyed"): "the other's snapshot must be younger than the locks",
}
#: What reads the text of a file, and which of its arguments names the file.
READERS = {"sql": 0, "all_rows": 1, "one_row": 1, "run": 1, "records": 2, "_make_ready": 1, "_soon_make_ready": 1}
#: How a statement begins.
SQL = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE \S+ SET|DELETE FROM|SET (LOCAL|ROLE|CONSTRAINTS)|LOCK TABLE|ALTER|DROP|TRUNCATE|"
    r"COPY|LISTEN|NOTIFY|WITH \w+ AS)\b"
)


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "migrations" not in path.parts]


def executed() -> list[tuple[str, str]]:
    """Return each (file, function) of the package in which the one's text is read by the other."""
    found = []
    for path in modules():
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name not in READERS:
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in READERS:
                        for name in call.args[READERS[call.func.id] :][:1]:
                            texts = [each.value for each in ast.walk(name) if isinstance(each, ast.Constant)]
                            found += [(text, function.name) for text in texts if text in FILES]
    return sorted(set(found))


def test_each_file_is_executed_by_one_function_of_its_name() -> None:
    used = executed()
    assert {file for file, _ in used} == FILES.keys()
    assert [file for file, number in Counter(file for file, _ in used).items() if number > 1] == []
    others = {(file, function) for file, function in used if function.strip("_") not in (file, f"{file}_text")}
    assert others == OTHERS.keys()


def test_no_other_module_speaks_sql() -> None:
    said = []
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        said += [
            (path.name, node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
            and SQL.match(node.value)
        ]  # fmt: skip
    assert said == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_begins_with_what_it_does_and_no_percent_sign_is_doubled(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert text.startswith("-- ")
    assert "%%" not in text, "psycopg would need it; write mod() or ||"


def test_a_part_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError, match="top"):
        statement.sql("claim")
