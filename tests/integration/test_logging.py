"""Where the lines of a pool go: as the command line says, else as LOGGING says, else to stderr."""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings

from pgq.pool.logs import JsonFormatter, PlainFormatter, set_up_logging

Said = Callable[..., list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:
    """Set up logging as a process of a pool does and return what is seen of two lines, a DEBUG and a WARNING.

    The arguments are LOGGING, as Django takes it, and those of `set_up_logging`.
    """
    root, logger = logging.getLogger(), logging.getLogger("pgq")
    before = [(each, each.level, each.handlers[:], each.propagate, each.disabled) for each in (root, logger)]

    def say(config: dict[str, Any] | None, format: str | None = None, level: str | None = None) -> list[str]:
        # Without what pytest has put there.
        for each in (root, logger):
            each.handlers[:], each.propagate, each.disabled = [], True, False
            each.setLevel(logging.NOTSET if each is logger else logging.WARNING)
        if config is not None:
            logging.config.dictConfig({"version": 1, "handlers": HANDLERS, "formatters": FORMATTERS, **config})
        set_up_logging(format, level)
        logger.debug("a detail")
        logger.info("a fact")
        logger.warning("a worry")
        return capsys.readouterr().err.splitlines()

    yield say
    for each, level, handlers, propagate, disabled in before:
        each.setLevel(level)
        each.handlers[:], each.propagate, each.disabled = handlers, propagate, disabled


FORMATTERS = {"theirs": {"format": "theirs %(levelname)s %(message)s"}}
HANDLERS = {"theirs": {"class": "logging.StreamHandler", "formatter": "theirs"}}
ROOT = {"root": {"handlers": ["theirs"], "level": "WARNING"}}


def own(**logger: Any) -> dict[str, Any]:
    return {"loggers": {"pgq": logger}}


def test_without_logging_lines_go_to_stderr(said):
    facts = said(None)
    assert [line.split()[1] for line in facts] == ["INFO", "WARNING"]
    with override_settings(PGQ={"log_level": "WARNING"}):
        assert len(said(None)) == 1
        # The command line says more.
        assert len(said(None, None, "DEBUG")) == 3
    assert [json.loads(line)["message"] for line in said(None, "json")] == ["a fact", "a worry"]


@pytest.mark.parametrize("disable", [True, False])
def test_handlers_of_the_root_are_used(disable, said):
    # By disable_existing_loggers the logger is silent if it was there before; that is no wish of the project.
    config = {**ROOT, "disable_existing_loggers": disable}
    assert said(config) == ["theirs INFO a fact", "theirs WARNING a worry"]
    assert said(config, None, "WARNING") == ["theirs WARNING a worry"]
    assert [json.loads(line)["message"] for line in said(config, "json")] == ["a fact", "a worry"]


def test_level_of_the_logger_is_kept(said):
    with override_settings(PGQ={"log_level": "DEBUG"}):
        assert said({**ROOT, **own(level="WARNING")}) == ["theirs WARNING a worry"]
        [line] = said(own(level="WARNING"))
        assert line.endswith("a worry")
        assert "theirs" not in line
    assert len(said(own(level="ERROR"), None, "DEBUG")) == 3


def test_handlers_of_the_logger_are_kept(said):
    config = own(handlers=["theirs"], propagate=False, level="INFO")
    theirs = ["theirs INFO a fact", "theirs WARNING a worry"]
    assert said(config) == said(config, "json") == theirs
    # Not once more by ours, nor by the root.
    assert said({**ROOT, **own(handlers=["theirs"], propagate=False)}) == theirs


def test_logger_that_is_to_be_silent_is(said):
    null = {"handlers": {"null": {"class": "logging.NullHandler"}}}
    assert said({**null, **own(handlers=["null"], propagate=False)}) == []


def test_formatters_are_those_of_the_command_line(said):
    said(None, "json")
    assert isinstance(logging.getLogger("pgq").handlers[0].formatter, JsonFormatter)
    said(None, "plain")
    assert isinstance(logging.getLogger("pgq").handlers[0].formatter, PlainFormatter)


TASKS = """\
import logging
from pgq import signals
from pgq.tasks import task

logger = logging.getLogger(__name__)

@task
def speak(): logger.info("a task speaks")

def says(proc_name, **kwargs): logger.info("%s ends", proc_name)

signals.pre_exit.connect(says)
"""
LOGGING = {
    "version": 1,
    "formatters": FORMATTERS,
    "handlers": HANDLERS,
    "root": {"handlers": ["theirs"], "level": "INFO"},
}


@pytest.mark.parametrize("settings", ["forkserver", "spawn", "no LOGGING_CONFIG"])
def test_all_processes_log_as_the_project_says(settings, project):
    """Also with disable_existing_loggers, whose default is True, and which silences loggers if it works twice."""
    start_method = settings if settings == "spawn" else "forkserver"
    source = f"LOGGING = {LOGGING!r}\nPGQ = {{'workers': 1, 'start_method': {start_method!r}}}\n"
    if settings == "no LOGGING_CONFIG":
        source += "LOGGING_CONFIG = None\nimport logging.config\nlogging.config.dictConfig(LOGGING)\n"
    shop = project(source, apps={"shop": {"tasks.py": TASKS}})
    shop.python("from shop.tasks import speak; speak.enqueue()")
    lines = shop.manage("pgq_worker", "--run-once").stderr.splitlines()
    for line in ("a task speaks", "pgq worker 0 ends", "pgq upkeep ends", "pool default has stopped"):
        assert lines.count(f"theirs INFO {line}") == 1, lines
    assert all(line.startswith("theirs ") for line in lines)
