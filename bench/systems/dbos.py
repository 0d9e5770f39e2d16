"""DBOS: its queues with a concurrency, with one for each partition, and with a limiter."""

from __future__ import annotations

from urllib.parse import urlencode

from bench.systems.base import KEYS, System, database, url

#: Seconds between two looks at a queue; its default is 1.
POLL = 0.1


class Dbos(System):
    name = "dbos"
    requirements = ("dbos==3.4.0",)
    settings = (
        f"one process for each worker, async workflows, `polling_interval_sec` {POLL}; one key: `global_concurrency` 1;"
        " 10,000 keys: `partition_concurrency` 2; rate: `limiter`"
    )
    keeps = "the workflow's row with its result"
    done = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"
    rate = 100.0
    chunk = 100
    kinds = ()
    limited = {"one-key": 10.0, "keys": 30.0, "rated": 1000.0}
    picks_up = False

    def worker_commands(self, python: str, workers: int) -> list[list[str]]:
        return [[python, "-m", "bench.apps.dbos", str(number)] for number in range(workers)]

    def prepare(self) -> None:
        from dbos import DBOS

        DBOS.migrate(system_database_url())
        self.open()
        # A worker would register them, too; but tasks are enqueued before there is one.
        for name, limits in queues().items():
            self._client.register_queue(name, polling_interval_sec=POLL, **limits)  # type: ignore[arg-type]

    def open(self) -> None:
        from dbos import DBOSClient

        self._client = DBOSClient(system_database_url=system_database_url(), application_name="bench")

    def enqueue_one(self, task: str, *args: int) -> None:
        self._client.enqueue({"workflow_name": "noop", "queue_name": task if task in queues() else "noop"})

    def enqueue_many(self, task: str, count: int) -> None:
        for number in range(count):
            options = {"workflow_name": "noop", "queue_name": task}
            if task == "keys":
                options["queue_partition_key"] = f"key {number % KEYS}"
            self._client.enqueue(options)  # type: ignore[arg-type]


def system_database_url() -> str:
    """Return the database as SQLAlchemy reads it: a directory of sockets is a parameter, not the host."""
    given = dict(database())
    if not given.get("host", "").startswith("/"):
        return url()
    name, user = given.pop("dbname"), given.pop("user")
    return f"postgresql://{user}@/{name}?{urlencode(given)}"


def queues() -> dict[str, dict[str, object]]:
    """Return the queues by the kind of task, with their limits."""
    return {
        "noop": {},
        "one-key": {"global_concurrency": 1},
        "keys": {"partition_concurrency": 2},
        "rated": {"limiter": {"limit": System.per_second, "period": 1.0}},
    }
