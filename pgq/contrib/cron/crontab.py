"""The lines of a crontab: those that run management commands become schedules, each other is refused with its reason.

What a line does around the command is understood: ``cd``, the activation of a virtual environment, variables,
``flock``, ``timeout``, ``nice``, redirections. Nothing of the shell is run or expanded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from pgq.config import ScheduleConfig
from pgq.contrib.cron.found import Found, both_days, named

_VARIABLE = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_REDIRECTION = re.compile(r"""(?<!\S)(?:\d*|&)(?:>>?|<)&?\s*[^\s"';|&()]+""")
#: An input other than none at all.
_INPUT = re.compile(r"""(?<!\S)\d*<&?\s*(?!/dev/null(?:\s|$))[^\s"';|&()]""")
_MACRO = re.compile(r"@\w+")
#: Longest comment that is taken for a name.
_NAME_LENGTH = 100
#: What may stand before the program, and which of its options take an argument of their own.
_WRAPPERS = {
    **dict.fromkeys(("nohup", "setsid", "exec", "command", "time")),
    "nice": "-n",
    "ionice": "-c -n -p",
    "env": "-u -C",
    "flock": "-w -E",
    "timeout": "-k -s",
    "python": "-W -X",
}
_RUNNERS = {("uv", "run"), ("poetry", "run"), ("pipenv", "run"), ("pdm", "run")}
#: Options of manage.py that say where and how it runs.
_OF_MANAGE = ("--settings", "--pythonpath")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class _Refused(Exception):
    """The line is no management command that can be taken over."""


def find(text: str, *, user_field: bool = False) -> list[Found]:
    """Return the jobs of a crontab.

    Args:
        user_field: A user stands before each command, as in /etc/crontab.
    """
    return named(_lines(text, user_field))


def _lines(text: str, user_field: bool) -> Iterator[Found]:
    comment, zone = None, None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line:
            comment = None
        elif line.startswith("#"):
            comment = line.lstrip("#").strip()[:_NAME_LENGTH] or None
        elif (variable := _VARIABLE.fullmatch(line)) is not None:
            name, value = variable[1], variable[2].strip("\"'")
            if name == "CRON_TZ":
                zone = value or None
            else:
                yield Found(f"line {number}: {line}", refused=_variable(name))
        else:
            yield _job(f"line {number}: {line}", line, comment, zone, user_field)
            comment = None


def _variable(name: str) -> str:
    if name == "MAILTO":
        return "PGQ['error_reporter'] tells of failures"
    return "a variable: give it to the pool, whose environment is that of its tasks"


def _job(source: str, line: str, comment: str | None, zone: str | None, user_field: bool) -> Found:
    count = (1 if _MACRO.match(line) else 5) + user_field
    parts = line.split(None, count)
    if len(parts) <= count:
        return Found(source, refused="is no job: its fields are missing")
    fields, shell = parts[: count - user_field], parts[-1]
    if len(fields) == 5 and both_days(fields[2], fields[4]) and (fields[2][0] == "*" or fields[4][0] == "*"):
        return Found(
            source,
            refused="both days are given, one of them by '*/': cron fires if both fit, here if one does; list the days",
        )
    notes: list[str] = []
    try:
        what = _command(_input(shell), notes)
    except _Refused as error:
        return Found(source, refused=str(error))
    name = comment or " ".join([what["command"], *what["args"]])[:_NAME_LENGTH]
    return Found(source, ScheduleConfig(name, **what, cron=" ".join(fields), time_zone=zone), notes=tuple(notes))


def _input(shell: str) -> str:
    """Return a command without cron's own escapes: an unescaped percent sign begins what it reads."""
    if re.search(r"(?<!\\)%", shell):
        raise _Refused("'%' gives it an input, which a task has not")
    return shell.replace("\\%", "%")


def _command(shell: str, notes: list[str]) -> dict[str, Any]:
    """Return the fields of a `ScheduleConfig` for the management command that a shell line runs."""
    if "`" in shell or "$(" in shell:
        raise _Refused("the shell would run another program inside it")
    without = _REDIRECTION.sub(" ", shell)
    if _INPUT.search(shell):
        raise _Refused("it reads its input from elsewhere, which a task has not")
    if without != shell:
        notes.append("its output is the result of its task, and goes to no file")
    lexer = shlex.shlex(without, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise _Refused(f"the shell would not read it: {error}") from None
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if set(token) <= set("();<>|&"):
            if token not in ("&&", ";"):
                raise _Refused(f"not a management command alone: {token!r}")
            pieces.append([])
        else:
            pieces[-1].append(token)
    left = [piece for piece in pieces if piece and not _is_preparation(piece)]
    if len(left) != 1:
        raise _Refused("not a management command" if not left else "several programs; use a schedule for each")
    return _program(left[0], notes)


def _is_preparation(piece: list[str]) -> bool:
    """Whether a part of a line only prepares the next: the folder, the environment, a test for a file."""
    return piece[0] in ("cd", "source", ".", "export", "[", "test", "umask", "ulimit", "set")


def _program(words: list[str], notes: list[str]) -> dict[str, Any]:
    """Return the same for one program with its arguments, which may be wrapped in others."""
    more: dict[str, Any] = {}
    while words:
        word, base = words[0], words[0].rpartition("/")[2]
        if _ASSIGNMENT.match(word):
            notes.append(f"{word.partition('=')[0]} is not carried over: the pool's environment is that of its tasks")
            words = words[1:]
        elif tuple(words[:2]) in _RUNNERS:
            words = words[2:]
        elif base == "flock":
            # Then a file or a descriptor.
            words = _after_options(base, words[1:])[1:]
            more["overlap"] = "skip"
            if words[:1] == ["-c"]:
                return {**_command(" ".join(words[1:]), notes), **more}
        elif base == "timeout":
            words = _after_options(base, words[1:])
            length = _LENGTH.fullmatch(words[0]) if words else None
            if length is None:
                raise _Refused("its timeout cannot be read")
            more["timeout"] = float(length[1]) * _SECONDS[length[2]]
            words = words[1:]
        elif base in _WRAPPERS and base != "python":
            words = _after_options(base, words[1:])
        elif base in ("sh", "bash", "dash", "zsh") and len(words) >= 3 and re.fullmatch(r"-\w*c", words[1]):
            return {**_command(words[2], notes), **more}
        else:
            return {**_management(words, notes), **more}
    raise _Refused("not a management command")


def _after_options(wrapper: str, words: list[str]) -> list[str]:
    """Return what follows the options of a program."""
    valued = (_WRAPPERS[wrapper] or "").split()
    # flock -c has a whole command as its argument.
    while words and words[0].startswith("-") and (wrapper, words[0]) != ("flock", "-c"):
        words = words[2:] if words[0] in valued else words[1:]
    return words


def _management(words: list[str], notes: list[str]) -> dict[str, Any]:
    base = words[0].rpartition("/")[2]
    if re.fullmatch(r"python[\d.]*", base):
        rest = words[1:]
        if rest[:2] == ["-m", "django"]:
            rest = rest[2:]
        else:
            rest = _after_options("python", rest)
            if not rest or not rest[0].endswith("manage.py"):
                raise _Refused("not a management command: wrap it in one, or in a function")
            rest = rest[1:]
    elif base.endswith("manage.py") or base in ("django-admin", "django-admin.py"):
        rest = words[1:]
    else:
        raise _Refused("not a management command: wrap it in one, or in a function")
    kept: list[str] = []
    skip = False
    for word in rest:
        if skip:
            skip = False
        elif word.partition("=")[0] in _OF_MANAGE:
            skip = "=" not in word
            notes.append(f"{word.partition('=')[0]} is not carried over: the task runs in the pool's own settings")
        else:
            kept.append(word)
    if not kept:
        raise _Refused("manage.py without a command")
    if kept[:2] == ["crontab", "run"]:
        # With both taken, each job would run twice.
        raise _Refused("django-crontab wrote it from CRONJOBS: take those by pgq_schedules import-django-crontab")
    if any("$" in word for word in kept):
        raise _Refused("the shell would expand a variable in it; write what it holds")
    return {"command": kept[0], "args": kept[1:]}
