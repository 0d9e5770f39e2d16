"""What pgq uses of Python and Django without their promise: it is there, does its work, and stands in one module."""

from __future__ import annotations

import argparse
import ast
import asyncio
import io
import json
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, OutputWrapper
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import override_settings

import pgq
from pgq.ground import private
from pgq.models import Task
from pgq.pool.activity import ActivityCell

ROOT = Path(pgq.__file__).parent
#: Documented, or promised by the language, though they begin with an underscore.
PROMISED = {
    "_meta",
    "_state",
    "_default_manager",
    "_base_manager",
    "_exit",
    "_getframe",
    "_fields",
    "_asdict",
    "_make",
    "_replace",
}


def test_handlers_of_signals_come_as_they_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert private.getsignal(signal.SIGCHLD) == signal.getsignal(signal.SIGCHLD)
    assert type(private.getsignal(signal.SIGCHLD)) is not signal.Handlers


def test_the_scanner_reads_by_the_hooks_of_its_decoder() -> None:
    decoder = json.JSONDecoder(object_hook=lambda found: ("object", found))
    assert private.make_scanner(decoder)('{"a": 1} rest', 0) == (("object", {"a": 1}), 8)


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGQ_TEST_PRIVATE", "here")
    assert private.environment()[os.environ.encodekey("PGQ_TEST_PRIVATE")] == os.environ.encodevalue("here")  # type: ignore[attr-defined]


def test_a_running_loop_can_be_seen_and_taken_away() -> None:
    async def look() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        seen = private.get_running_loop() is loop
        private.set_running_loop(None)
        try:
            return seen, private.get_running_loop() is None
        finally:
            private.set_running_loop(loop)

    assert asyncio.run(look()) == (True, True)


def test_the_unpickler_in_python_asks_for_each_name() -> None:
    class Asking(private.PythonUnpickler):
        def find_class(self, module: str, name: str) -> object:
            return f"{module}.{name}"

    assert Asking(io.BytesIO(pickle.dumps(os.path.join))).load() == "posixpath.join"


def test_an_arena_is_memory_that_a_child_which_was_not_forked_shares() -> None:
    slot = ActivityCell()
    child = multiprocessing.get_context("spawn").Process(target=slot.idle, args=(3, 4))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert (slot.read().succeeded, slot.read().failed) == (3, 4)


def test_the_helpers_of_multiprocessing_are_known_by_their_pids() -> None:
    multiprocessing.resource_tracker.ensure_running()
    tracker = multiprocessing.resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    assert private.fork_server_pids() >= {tracker}
    assert hasattr(multiprocessing.forkserver._forkserver, "_forkserver_pid")  # type: ignore[attr-defined]


def test_the_ends_of_a_process_can_be_done_by_hand() -> None:
    program = (
        "import atexit, os, threading, time; from pgq.ground import private\n"
        "atexit.register(print, 'atexit', flush=True)\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread', flush=True))).start()\n"
        "private.end_threads(); private.run_exit_functions(); os._exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT.parent)
    assert (done.returncode, done.stdout.split(), done.stderr) == (3, ["thread", "atexit"], "")


def test_settings_are_what_stands_below_them() -> None:
    with override_settings(PGQ_TEST_PRIVATE=1):
        assert private.settings_below(settings).__dict__["PGQ_TEST_PRIVATE"] == 1
    assert not hasattr(private.settings_below(settings), "PGQ_TEST_PRIVATE")


def test_pools_of_connections_are_kept_on_the_class() -> None:
    class Wrapper(DatabaseWrapper):
        _connection_pools = {"default": object()}

    assert DatabaseWrapper._connection_pools == {}  # type: ignore[attr-defined]
    private.clear_connection_pools(Wrapper)
    assert Wrapper._connection_pools == {}
    private.clear_connection_pools(object)


def test_a_command_tells_its_stream_and_who_called_it() -> None:
    stream = io.StringIO()
    assert private.raw_stream(OutputWrapper(stream)) is stream
    assert private.raw_stream(stream) is stream
    seen = []

    class Command(BaseCommand):
        def handle(self, *args: object, **options: object) -> None:
            seen.append(private.is_called_by_command_line(self))

    call_command(Command())
    Command().run_from_argv(["manage.py", "command", "--skip-checks"])
    assert seen == [False, True]


def test_a_parser_tells_its_options() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-w", "--workers", "--processes")
    assert private.option_strings(parser) == {"-h", "--help", "-w", "--workers", "--processes"}


def test_a_query_tells_whether_using_was_said() -> None:
    assert private.set_alias(Task.objects.all()) is None
    assert private.set_alias(Task.objects.using("default")) == "default"
    hinted = Task.objects.db_manager(hints={"instance": 1}).all()
    assert private.router_hints(hinted) == {"instance": 1}


def test_no_other_module_uses_a_name_with_an_underscore_that_is_not_our_own() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")}
    own = {
        name
        for tree in trees.values()
        for node in ast.walk(tree)
        for name in (
            getattr(node, "name", None),
            node.id if isinstance(node, ast.Name) else None,
            node.attr if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) else None,
        )
        if isinstance(name, str)
    }
    found = [
        f"{path.name}:{node.lineno}: {node.attr}"
        for path, tree in trees.items()
        if path.name != "private.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        and node.attr not in own | PROMISED
    ]  # fmt: skip
    assert not found
