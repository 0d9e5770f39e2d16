"""A task queue in one file, without a project: tables, a pool of workers, and a caller that waits for results."""

import os
import sys

from django.conf import settings

from pgq.contrib.embedded import database_from_url

if not settings.configured:  # A worker imports this file for its tasks, and has the settings by then.
    settings.configure(
        SECRET_KEY="for this machine only",
        DATABASES={"default": database_from_url(os.environ.get("DATABASE_URL", "postgresql:///quickstart"))},
        INSTALLED_APPS=["pgq"],
        USE_TZ=True,
        PGQ={"workers": 2, "log_level": "WARNING"},
    )


def count_words(text: str) -> int:
    return len(text.split())


def divide(a: int, b: int) -> float:
    return a / b


def call() -> None:
    """Enqueue some tasks and wait for what becomes of them."""
    from pgq.tasks import async_task

    # By their path: a worker cannot import what stands in "__main__".
    words = async_task("quickstart.count_words", "to be or not to be")
    print("words:", words.result(wait=20_000))
    # Any function that can be imported is a task.
    print("root:", async_task("math.sqrt", 16).result(wait=20_000))
    failed = async_task("quickstart.divide", 1, 0).fetch(wait=20_000)
    print("failed:", failed.exception, failed.message)


if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    if sys.argv[1:] == ["call"]:
        import django

        django.setup()
        call()
    else:
        execute_from_command_line(sys.argv)
