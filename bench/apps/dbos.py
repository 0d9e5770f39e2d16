"""A worker process: ``python -m bench.apps.dbos NUMBER``."""

import signal
import sys
import threading

from dbos import DBOS

from bench import tasks
from bench.systems.dbos import POLL, queues, system_database_url


@DBOS.workflow(name="noop")
async def noop() -> None:
    tasks.noop()


if __name__ == "__main__":
    DBOS(
        config={
            "name": "bench",
            "system_database_url": system_database_url(),
            "application_version": "1",
            "executor_id": f"worker {sys.argv[1]}",
            "log_level": "WARNING",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    for name, limits in queues().items():
        DBOS.register_queue(name, polling_interval_sec=POLL, **limits)  # type: ignore[arg-type]
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stopping.wait()
    DBOS.destroy()
