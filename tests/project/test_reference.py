"""The pages of docs/reference that are made from the code are what it says, and no public name is left out."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pgq
from pgq import errors, signals
from pgq.ground import events
from pgq.management import command as commands_of_pgq
from pgq.tasks import async_task
from pgq.testing import drain
from pgq.urls import problems
from tests.support.blocks import blocks
from tests.support.reference import checks, columns, commands, docstrings, layout, members, metrics, models, pages

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_each_page_is_what_the_code_says() -> None:
    for path, text in pages.written().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run make docs"


def test_each_block_of_a_page_that_is_made_is_made() -> None:
    """Its blocks are signatures, and what commands have printed: none of them is a program."""
    kinds = {block.language for path in pages.written() for block in blocks(str(path.relative_to(ROOT)))}
    assert kinds == {"python", "text", "console"}


# ------------------------------------------------------------------------------------------------- public names


@pytest.mark.parametrize("module", layout.MODULES)
def test_every_public_name_is_described(module: str) -> None:
    assert members.undescribed(importlib.import_module(module)) == []


def test_every_public_name_has_a_place_and_stands_there() -> None:
    for module in layout.MODULES:
        for name in layout.public(module):
            told, where = layout.placed()[name]
            assert f"### `{told}`" in page(where), name
            assert f"[`{name}`](" in page("python.md"), name


def test_what_a_class_has_from_a_base_that_is_not_public_is_told_once() -> None:
    functions = page("functions.md")
    assert "TaskFunction.enqueue(*args: P.args, **kwargs: P.kwargs) -> TaskId[R]" in functions
    assert "BoundTask.enqueue(" not in functions
    assert "Besides, as those of [`pgq.tasks.TaskFunction`](#pgqtaskstaskfunction): `name`" in functions


def test_a_module_that_says_what_is_public_is_told_of() -> None:
    """But those whose names are for pgq's own rooms."""
    inner = {"pgq.codec", "pgq.conf", "pgq.recurrence", "pgq.ground.private"}
    saying = {
        found.name
        for found in pkgutil.walk_packages(pgq.__path__, "pgq.")
        if "\n__all__ = [" in _source(found.name) and not found.name.startswith("pgq.migrations")
    }
    assert len(saying) > 20
    assert saying - inner - set(layout.MODULES) == set()


#: Of public modules: what other rooms of pgq use.
INNER = {
    "pgq.errors": {"field_of", "invalid", "reason_of"},
    "pgq.ground.events": {"run_before_exit", "trace_of"},
    "pgq.models.metrics": {"ArrayColumn"},
    "pgq.records": {"Blame", "Progress", "Signed", "TaskState", "UniqueCall"},
    "pgq.signals": {"send"},
    "pgq.status.metrics": {"as_json"},
    "pgq.status.why": {"verdict"},
    "pgq.tasks.bulk": {"cancel_some", "move_some", "retry_some"},
    "pgq.urls.django_cfg": {"everything", "schedules", "status", "tasks"},
}


@pytest.mark.parametrize("module", layout.MODULES)
def test_what_a_public_module_defines_is_public_or_known_not_to_be(module: str) -> None:
    defined = {
        node.name
        for node in ast.parse(_source(module)).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_"
    }
    assert defined - set(importlib.import_module(module).__all__) == INNER.get(module, set())


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    return Path(spec.origin or "").read_text(encoding="utf-8") if spec.origin else ""


def test_a_name_without_a_description_is_found() -> None:
    def bare() -> None:
        pass

    class Bare:
        def method(self) -> None:
            pass

    module = ModuleType("pgq.bare", "A module.")
    module.__all__, module.bare, module.Bare = ["Bare", "bare"], bare, Bare
    assert members.undescribed(module) == ["pgq.bare.Bare", "pgq.bare.Bare.method", "pgq.bare.bare"]


#: Parameters whose names say all, where they are.
UNDERSTOOD = {"request", "cursor"}


def test_every_parameter_of_a_public_function_is_named_in_its_docstring() -> None:
    """Or in that of the function whose arguments it says that it takes."""
    missing = []
    for module in layout.MODULES:
        home = importlib.import_module(module)
        functions = {name: value for name in home.__all__ if inspect.isfunction(value := getattr(home, name))}
        for name, function in functions.items():
            doc = _docs(function, functions)
            own = set(inspect.signature(function).parameters) - UNDERSTOOD
            missing += [f"{module}.{name}: {one}" for one in sorted(own) if not re.search(rf"\b{one}\b", doc)]
    assert missing == []


def _docs(function: Any, others: dict[str, Any]) -> str:
    doc = function.__doc__ or ""
    same = re.findall(r"(?:same as|of|as for|see) `(\w+)`", doc, re.IGNORECASE)
    return doc + "".join(
        _docs(others[name], others) for name in same if name in others and others[name] is not function
    )


# ------------------------------------------------------------------------------------------------- exceptions, signals


def test_every_exception_is_public_and_on_its_page() -> None:
    kinds = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PgqError) and value.__module__ == errors.__name__
    ]
    assert sorted(kinds) == sorted(errors.__all__)
    drawn = re.findall(r"(?:─ |^    )([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(errors.__all__)


def test_every_refusal_of_rest_is_explained() -> None:
    assert set(problems.MEANINGS) == set(problems.WORDS)
    for word in problems.WORDS.values():
        assert f"`{problems.TYPE}{word}`" in page("errors.md")


def test_every_signal_and_event_is_on_its_page() -> None:
    sent = [name for name, value in vars(signals).items() if type(value).__name__ == "Signal"]
    told = [name for name, value in vars(events).items() if isinstance(value, events.Event | events.Around)]
    assert set(sent) <= set(signals.__all__)
    assert set(told) <= set(events.__all__)


@pytest.mark.django_db
def test_what_a_signal_says_of_its_arguments_is_what_it_sends() -> None:
    sent: dict[str, dict[str, Any]] = {}

    def note(name: str) -> Any:
        def receive(sender: object, signal: object, **arguments: Any) -> None:
            # The dict is filled on its way.
            sent[name] = {**arguments, "task": dict(arguments["task"])}

        return receive

    told = ("pre_enqueue", "pre_execute", "post_execute_in_worker", "post_execute")
    receivers = {name: note(name) for name in told}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    try:
        async_task("math.copysign", 2, -2)
        drain()
    finally:
        for name, receiver in receivers.items():
            getattr(signals, name).disconnect(receiver)
    before = members.comment(signals, "pre_execute")
    for name in told:
        said = members.comment(signals, name) + (before if "`pre_execute`" in members.comment(signals, name) else "")
        names = {*sent[name], *sent[name]["task"]}
        assert [one for one in names if f"`{one}`" not in said] == [], name


# ------------------------------------------------------------------------------------------------- columns


def test_every_column_of_a_model_is_explained() -> None:
    assert models.undescribed() == []


def test_comments_of_sql_are_read() -> None:
    assert columns.of_column("pgq_queue", "group").startswith("Label of tasks")
    assert columns.of_column("pgq_worker", "clock_skew").endswith("ahead of the database's.")
    assert columns.of_column("pgq_queue", "nothing") == ""


# ------------------------------------------------------------------------------------------------- commands


def test_every_command_and_option_is_explained() -> None:
    assert commands.undescribed() == []
    text = page("commands.md")
    for name in commands.command_names():
        section = text.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
        for action in commands._actions(commands._command(name)):
            shown = ", ".join(action.option_strings) or action.metavar or ""
            assert shown in section, (name, action.dest)


def test_a_code_that_a_command_exits_with_is_among_those_it_tells() -> None:
    folder = Path(commands_of_pgq.__file__).parent
    for name in commands.command_names():
        tree = ast.parse((folder / f"commands/{name}.py").read_text(encoding="utf-8"))
        used = {
            value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            for value in [
                *(keyword.value for keyword in node.keywords if keyword.arg == "returncode"),
                *(node.args if isinstance(node.func, ast.Name) and node.func.id == "SystemExit" else ()),
            ]
            if isinstance(value, ast.Constant)
        }
        assert used <= set(commands._command(name).exit_codes), name


def test_help_tells_the_exit_codes() -> None:
    shown = commands._command("pgq_check").create_parser("manage.py", "pgq_check").format_help()
    assert "1: there is a problem; 2: nothing could be checked" in " ".join(shown.split())
    assert "Exit codes: 0:" in commands._command("pgq_worker").create_parser("manage.py", "pgq_worker").format_help()


@pytest.mark.parametrize(
    ("help", "default", "rest"),
    [
        ("worker processes", "", "worker processes"),
        ("a port (default: 80)", "80", "a port"),
        ("names (default: PGQ['x'] (or y), else all), or more", "PGQ['x'] (or y), else all", "names, or more"),
    ],
)
def test_a_default_is_read_from_a_help(help: str, default: str, rest: str) -> None:
    assert commands.split_default(help) == (default, rest)


# ------------------------------------------------------------------------------------------------- checks, metrics


def test_every_system_check_is_on_the_page() -> None:
    package = Path(pgq.__file__).parent
    used = {id for file in package.rglob("*.py") for id in re.findall(r'id="(pgq\.[EW]\d+)"', file.read_text())}
    assert len(used) > 15
    assert {one.id for one in checks.system_checks()} == used
    for id in used:
        assert f"| `{id}` " in page("checks.md")


def test_every_finding_says_when_and_what_to_do() -> None:
    found = checks.findings()
    assert len(found) > 20
    assert [one.name for one in found if not (one.when and one.advice and one.status)] == []


def test_every_metric_has_a_type_and_a_help() -> None:
    assert len(metrics.families()) > 20
    assert [one.name for one in metrics.families() if not (one.kind and one.help)] == []
    assert [name for name, where, said in metrics.span_attributes() if not (where and said)] == []


# ------------------------------------------------------------------------------------------------- docstrings


def test_docstrings_become_markdown() -> None:
    doc = """Do ``this``.

    Like so::

        this(1)

    Args:
        a, b: What
            to do.

    Raises:
        ValueError: Never.
    """
    assert docstrings.markdown(doc) == (
        "Do `this`.\n\nLike so:\n\n```python\nthis(1)\n```\n\n**Args**\n\n* `a`, `b`: What\n  to do.\n\n"
        "**Raises**\n\n* `ValueError`: Never.\n\n"
    )
    code = "```python\nthis(1)\nthat(2)\n```\n\n"
    assert docstrings.markdown("Like so::\n\n    this(1)\n    that(2)\n") == f"Like so:\n\n{code}"
    assert docstrings.markdown("Like so.\n\n    this(1)\n    that(2)\n\nEnd.") == f"Like so.\n\n{code[:-1]}\nEnd.\n"
    assert docstrings.markdown("See docs/guide/tasks.md, or docs/reference/sql.md.") == (
        "See [tasks.md](../guide/tasks.md), or [sql.md](sql.md).\n"
    )


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (None, ""),
        ("Do this. Then that.", "Do this."),
        ("A view. Put it there::\n\n    code", "A view."),
        ("Give ``a`` or\n    b: that is all.", "Give `a` or b: that is all."),
        ("Like ``shop.order:7`` it is.\n\nMore.", "Like `shop.order:7` it is."),
    ],
)
def test_the_first_sentence_of_a_docstring(doc: str | None, sentence: str) -> None:
    assert docstrings.first_sentence(doc) == sentence
