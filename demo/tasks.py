"""The demo's tasks. A function with @task can be called as ever; enqueue it, and a worker of the pool calls it.

count_file        once for each source file of Python's standard library
collect           once, when all of those are done
refresh_summary   every minute
"""

import ast
import glob
import io
import os
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

from demo.models import SourceFile, Summary
from pgq.models import Schedule
from pgq.tasks import count_group, enqueue_many, schedule, task

#: Where the files are. DEMO_SOURCE names another folder, a project of yours for instance.
SOURCE = Path(os.environ.get("DEMO_SOURCE") or sysconfig.get_path("stdlib")).absolute()
NOT_OURS = {"site-packages", "dist-packages"}


@task(timeout=60)
def count_file(path: str) -> int:
    """Parse a source file and store what is in it. If Python cannot parse it, the task fails, and the admin says why.

    A worker may die after its work and before its receipt, and then the task runs again: so it writes the row of its
    file, and does not add to a total.
    """
    source = (SOURCE / path).read_bytes()
    nodes = Counter(type(node) for node in ast.walk(ast.parse(source, path)))
    tokens = Counter(token.type for token in tokenize.tokenize(io.BytesIO(source).readline))
    file = SourceFile(
        path=path,
        lines=len(source.splitlines()),
        comments=tokens[tokenize.COMMENT],
        imports=nodes[ast.Import] + nodes[ast.ImportFrom],
        functions=nodes[ast.FunctionDef] + nodes[ast.AsyncFunctionDef],
        classes=nodes[ast.ClassDef],
    )
    file.save()
    return file.lines


@task
def collect(group: str) -> dict[str, int]:
    """Add up what the tasks of a group have stored."""
    return {"failed": count_group(group, failures=True)} | Summary.refresh().totals()


@task
def refresh_summary() -> None:
    """Add up what is stored by now."""
    Summary.refresh()


def find_files() -> list[str]:
    """Return the paths of the files, below SOURCE."""
    found = glob.iglob("**/*.py", root_dir=SOURCE, recursive=True)
    return sorted(path for path in found if NOT_OURS.isdisjoint(Path(path).parts))


def enqueue_files(paths: list[str], group: str) -> list[str]:
    """Enqueue a task for each file, and one that collects them when all have succeeded or failed; return the ids."""
    return enqueue_many(count_file, paths, group=group, then=collect)


def keep_refreshing() -> None:
    """Have the summary refreshed every minute, from now on; a demo that was away makes up for nothing."""
    name = "Refresh the summary"
    schedule(refresh_summary, name=name, schedule_type=Schedule.MINUTES, minutes=1, catch_up=False, update=True)
