"""The adapter's process: ``python -m bench.adapter``. stdout is telemetry, stderr is for people."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.adapter import MESSAGE
from bench.adapter.histogram import Rolling

MANIFEST: dict[str, Any] = json.loads(Path(__file__).with_name("adapter.json").read_text())
#: Seconds between two looks at the depth of the queue.
LOOK = 0.25
#: The harness gives five seconds from SIGTERM to the end.
STOP_SECONDS = 3.5
_DEPTH = "SELECT count(*) FROM pgq_queue WHERE lock IS NULL AND parked IS NULL AND remaining IS NULL"


class Options(NamedTuple):
    """What the harness asks for, in its environment variables."""

    database_url: str
    scenario: str
    mode: str
    rate: float
    target_depth: int
    workers: int
    payload_bytes: int
    work_ms: float
    sample_every: int
    batch_max: int
    batch_ms: float
    instance: int

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Options:
        """Read them.

        Raises:
            ValueError: One is missing or wrong; the message names it.
        """
        if not environment.get("DATABASE_URL"):
            raise ValueError("DATABASE_URL: names the database to use, and is not set")

        def number(name: str, default: float, least: float = 0) -> float:
            given = environment.get(name) or str(default)
            try:
                value = float(given)
            except ValueError:
                value = -1
            if value < least:
                raise ValueError(f"{name}: must be a number from {least:g}, got {given!r}")
            return value

        options = cls(
            database_url=environment["DATABASE_URL"],
            scenario=environment.get("SCENARIO", "long_horizon"),
            mode=environment.get("PRODUCER_MODE", "fixed"),
            rate=number("PRODUCER_RATE", 800),
            target_depth=int(number("TARGET_DEPTH", 1000)),
            workers=int(number("WORKER_COUNT", 8, 1)),
            payload_bytes=int(number("JOB_PAYLOAD_BYTES", 256)),
            work_ms=number("JOB_WORK_MS", 1),
            sample_every=int(number("SAMPLE_EVERY_S", 5, 1)),
            batch_max=int(number("PRODUCER_BATCH_MAX", 1, 1)),
            batch_ms=number("PRODUCER_BATCH_MS", 10, 1),
            instance=int(number("BENCH_INSTANCE_ID", 0)),
        )
        if options.scenario not in ("long_horizon", "migrate_only"):
            raise ValueError(f"SCENARIO: there are long_horizon and migrate_only, got {options.scenario!r}")
        if options.mode not in ("fixed", "depth-target"):
            raise ValueError(f"PRODUCER_MODE: there are fixed and depth-target, got {options.mode!r}")
        return options


class Adapter:
    """A producer, a pool and a sampler around counters that each only one thread writes."""

    def __init__(self, options: Options, pipe: Path) -> None:
        self.options, self.pipe = options, pipe
        self.stopping = threading.Event()
        self.enqueued = 0
        self.completed = 0
        self.depth = 0
        self.waits = Rolling()
        self.waits_lock = threading.Lock()

    def run(self) -> int:
        """Work until SIGTERM; return the exit code."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self.stopping.set())
        command = [sys.executable, "-m", "django", "pgq_worker", "--workers", str(self.options.workers)]
        os.mkfifo(self.pipe)
        # Also for writing, so that it never seems to have ended when there is no worker.
        reader = os.open(self.pipe, os.O_RDWR)
        environment = os.environ | {"BENCH_ADAPTER_PIPE": str(self.pipe)}
        sampler = threading.Thread(target=self._guarded, args=(self.sample,), daemon=True)
        pool = subprocess.Popen([*command, "--log-level", "WARNING"], env=environment, stdout=sys.stderr)
        try:
            for loop in (self.produce, self.look):
                threading.Thread(target=self._guarded, args=(loop,), daemon=True).start()
            sampler.start()
            threading.Thread(target=self.listen, args=(reader,), daemon=True).start()
            while not self.stopping.wait(0.2):
                if pool.poll() is not None:
                    print(f"the pool ended with {pool.returncode}", file=sys.stderr)
                    return 1
            return 0
        finally:
            self.stopping.set()
            pool.terminate()
            # It says how things are once more, and a tick is whole or not there.
            if sampler.is_alive():
                sampler.join(1)
            try:
                pool.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # Its workers end with it; what they held is free again when their leases have run out.
                pool.kill()
                pool.wait()

    def _guarded(self, loop: Any) -> None:
        # Faults are part of the harness: a restart of the server must not end the adapter.
        while not self.stopping.is_set():
            try:
                loop()
            except Exception as error:
                print(f"{loop.__name__}: {error}", file=sys.stderr, flush=True)
                self.stopping.wait(0.5)

    # ------------------------------------------------------------------------------------------- producer

    def produce(self) -> None:
        from django.db import connection

        options = self.options
        connection.close()
        due, last = 0.0, time.monotonic()
        pause = options.batch_ms / 1000 if options.batch_max > 1 else 0.001
        while not self.stopping.wait(pause):
            now = time.monotonic()
            if options.mode == "depth-target":
                due = options.target_depth - self.depth
                # Until the next look, nobody knows what has become of these.
                self.depth += max(0, int(due))
            else:
                # At most a second's worth is made up for after a fault.
                due = min(due + options.rate * (now - last), max(1.0, options.rate))
            last = now
            while due >= 1 and not self.stopping.is_set():
                count = min(int(due), options.batch_max)
                self._enqueue(count)
                due -= count

    def _enqueue(self, count: int) -> None:
        from pgq.tasks import async_task, enqueue_many

        arguments = (time.time_ns(), self.options.work_ms, "x" * max(0, self.options.payload_bytes - 64))
        if count == 1:
            async_task("bench.adapter.work", *arguments)
        else:
            enqueue_many("bench.adapter.work", [arguments] * count)
        self.enqueued += count

    # ------------------------------------------------------------------------------------------- looking on

    def listen(self, reader: int) -> None:
        """Hear of each task that is done."""
        while True:
            # Messages are whole, and a multiple of them fits into what is read.
            messages = os.read(reader, MESSAGE.size * 4096)
            now = time.time()
            with self.waits_lock:
                for (waited,) in MESSAGE.iter_unpack(messages):
                    self.waits.add(waited, now)
            self.completed += len(messages) // MESSAGE.size

    def look(self) -> None:
        with psycopg.connect(self.options.database_url, autocommit=True) as connection:
            while not self.stopping.wait(LOOK):
                row = connection.execute(_DEPTH).fetchone()
                self.depth = row[0] if row else 0

    def sample(self) -> None:
        """Say how things are, at each multiple of SAMPLE_EVERY_S on the wall clock, and once more in the end."""
        every = self.options.sample_every
        last = (self.enqueued, self.completed, time.monotonic())
        # The first tick comes with the next boundary but counts from now.
        while not self.stopping.is_set():
            self.stopping.wait(every - time.time() % every)
            counts = (self.enqueued, self.completed, time.monotonic())
            self._tell(counts, last)
            last = counts

    def _tell(self, counts: tuple[int, int, float], last: tuple[int, int, float]) -> None:
        seconds = max(0.001, counts[2] - last[2])
        with self.waits_lock:
            p50, p95, p99 = self.waits.quantiles((0.5, 0.95, 0.99), time.time())
        every = float(self.options.sample_every)
        samples = [
            ("claim_p50_ms", p50, 30.0),
            ("claim_p95_ms", p95, 30.0),
            ("claim_p99_ms", p99, 30.0),
            ("enqueue_rate", (counts[0] - last[0]) / seconds, every),
            ("completion_rate", (counts[1] - last[1]) / seconds, every),
        ]
        if not self.options.instance:
            # These are about all replicas together, so the first one speaks for all.
            samples.append(("queue_depth", float(self.depth), 0.0))
            samples.append(("producer_target_rate", self.options.rate if self.options.mode == "fixed" else 0.0, 0.0))
        moment = _now()
        for metric, value, window in samples:
            self._say(
                t=moment,
                kind="adapter",
                subject_kind="adapter",
                subject="",
                metric=metric,
                value=value,
                window_s=window,
            )

    def descriptor(self) -> None:
        import pgq
        from pgq.store import schema

        self._say(
            kind="descriptor",
            event_tables=MANIFEST["event_tables"],
            event_indexes=MANIFEST["event_indexes"],
            extensions=MANIFEST["extensions"],
            version=pgq.__version__,
            schema_version=str(schema.VERSION),
            db_name=str(conninfo_to_dict(self.options.database_url).get("dbname", "")),
            started_at=_now(),
        )

    def _say(self, **record: Any) -> None:
        print(json.dumps({"system": MANIFEST["system"], **record, "instance_id": self.options.instance}), flush=True)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def main() -> int:
    try:
        options = Options.read(os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    os.environ["DJANGO_SETTINGS_MODULE"] = "bench.settings"
    # As an application would have it: the newest results are kept, the others pruned.
    os.environ.setdefault("BENCH_PGQ", json.dumps({"save_limit": 10_000}))
    import django
    from django.core.management import call_command

    django.setup()
    if not options.instance:
        call_command("migrate", verbosity=0, interactive=False)
    if options.scenario == "migrate_only":
        return 0
    with tempfile.TemporaryDirectory(prefix="pgq-adapter-") as folder:
        adapter = Adapter(options, Path(folder) / "done")
        adapter.descriptor()
        return adapter.run()


if __name__ == "__main__":
    sys.exit(main())
