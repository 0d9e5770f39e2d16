-- pgq 0001: the tables, their indexes, and the one trigger.
--
-- Run by Django's migrate, or by hand:
--     psql -v ON_ERROR_STOP=1 -1 -f migrations_sql/0001_initial.up.sql
-- in either order and any number of times: every statement here may meet its own work done.
-- Hence no psql meta-commands, no BEGIN/COMMIT, and IF NOT EXISTS or OR REPLACE throughout.

-- If a long transaction holds one of pgq's tables, give up: all other sessions would queue behind this statement.
SET LOCAL lock_timeout = '2s';

CREATE TABLE IF NOT EXISTS pgq_schema (
    version     integer     PRIMARY KEY,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgq_schema IS 'Which migrations_sql files have been applied, by migrate or by hand.';
INSERT INTO pgq_schema (version) VALUES (1) ON CONFLICT DO NOTHING;

-- A UUIDv7: 48 bits of Unix milliseconds, then random bits. Time-ordered, so pgq_task can be
-- partitioned on it, and made without any coordination, so shards never clash.
CREATE OR REPLACE FUNCTION pgq_uuid7(at timestamptz DEFAULT clock_timestamp()) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send(floor(extract(epoch FROM at) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;
COMMENT ON FUNCTION pgq_uuid7(timestamptz) IS 'A new UUIDv7 of that moment; the default id of a task.';

-- The smallest UUID of a moment: the bound of a partition, or of "since yesterday" in a query on id.
CREATE OR REPLACE FUNCTION pgq_uuid7_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT rpad(lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;
COMMENT ON FUNCTION pgq_uuid7_floor(timestamptz) IS 'The smallest id a task enqueued at that moment can have.';

-- The FIFO ticket. Drawn anew whenever a row becomes ready; gaps are normal.
-- CACHE stays 1: with a cache, sessions would draw tickets out of order and the watermarks
-- below could pass a ticket that no transaction holds yet.
CREATE SEQUENCE IF NOT EXISTS pgq_position AS bigint CACHE 1;

-- A flag that is free to read and obeys no transaction: the Unix time in milliseconds until which
-- some worker is known to sleep. NOTIFY serialises commits, so no session notifies past this time.
CREATE SEQUENCE IF NOT EXISTS pgq_sleep_until AS bigint MINVALUE 0 START 0;
-- The same for callers who wait for a result.
CREATE SEQUENCE IF NOT EXISTS pgq_wait_until AS bigint MINVALUE 0 START 0;

CREATE TABLE IF NOT EXISTS pgq_queue (
    -- A claim adds a second entry for each row next to the first one: leave it room, or each page is split for it.
    id            uuid             PRIMARY KEY WITH (fillfactor = 50) DEFAULT pgq_uuid7(),
    position      bigint           NOT NULL DEFAULT nextval('pgq_position'),
    priority      smallint         NOT NULL DEFAULT 0,
    attempts      smallint         NOT NULL DEFAULT 0,
    crashes       smallint         NOT NULL DEFAULT 0,
    cancelled     boolean          NOT NULL DEFAULT false,
    max_attempts  integer          NOT NULL DEFAULT 1,
    -- "C": as Python sorts, which goes on round the ring where a claim has ended; and no new libc can upset the indexes.
    queue         text COLLATE "C" NOT NULL DEFAULT 'default',
    func          text             NOT NULL,
    args          jsonb            NOT NULL DEFAULT '[]',
    kwargs        jsonb            NOT NULL DEFAULT '{}',
    options       jsonb            NOT NULL DEFAULT '{}',
    name          text,
    "group"       text,
    hook          text,
    timeout       double precision,
    run_after     timestamptz,
    remaining     integer,
    parked        text,
    schedule      bigint,
    slot          timestamptz,
    signature     bytea,
    history       jsonb            NOT NULL DEFAULT '[]',
    enqueued_at   timestamptz      NOT NULL DEFAULT clock_timestamp(),
    lock          timestamptz,
    worker        uuid,
    receipt       uuid,
    CONSTRAINT pgq_queue_func_check     CHECK (func <> ''),
    CONSTRAINT pgq_queue_queue_check    CHECK (queue <> ''),
    CONSTRAINT pgq_queue_args_check     CHECK (jsonb_typeof(args) = 'array'),
    CONSTRAINT pgq_queue_kwargs_check   CHECK (jsonb_typeof(kwargs) = 'object'),
    CONSTRAINT pgq_queue_options_check  CHECK (jsonb_typeof(options) = 'object'),
    CONSTRAINT pgq_queue_timeout_check  CHECK (timeout > 0),
    CONSTRAINT pgq_queue_attempts_check CHECK (max_attempts >= 0 AND attempts >= crashes AND crashes >= 0),
    -- A lease is whole or absent: when, which worker and which claim.
    CONSTRAINT pgq_queue_lease_check    CHECK ((lock IS NULL) = (worker IS NULL) AND (lock IS NULL) = (receipt IS NULL)),
    -- A row that waits for something is not running.
    CONSTRAINT pgq_queue_waiting_check  CHECK (lock IS NULL OR (run_after IS NULL AND parked IS NULL AND remaining IS NULL)),
    CONSTRAINT pgq_queue_slot_check     CHECK ((schedule IS NULL) = (slot IS NULL)),
    -- Times that Python can read. One row with 'infinity' would fail each claim or tick that meets it.
    CONSTRAINT pgq_queue_times_check    CHECK (least(enqueued_at, run_after, lock, slot) > '0001-01-02 00:00Z'
                                               AND greatest(enqueued_at, run_after, lock, slot) < '9999-12-30 00:00Z')
) WITH (
    -- The table is small and all of it changes all the time. Vacuum by count, not by share, and often:
    -- what stays dead is walked by the next scans.
    autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0,
    -- TOASTed arguments live a short while: try to keep them in the row.
    toast_tuple_target = 8160
);
COMMENT ON TABLE pgq_queue IS 'Live tasks: ready, waiting for a time, running or parked. A finished task leaves for pgq_task.';
COMMENT ON COLUMN pgq_queue.id IS 'UUIDv7, made from the time of the enqueue: ids are in order of it.';
COMMENT ON COLUMN pgq_queue.priority IS '-100 to 100; larger is claimed sooner.';
COMMENT ON COLUMN pgq_queue.cancelled IS
    'Whether it is to be cancelled: a running task is interrupted, another one ends without being run.';
COMMENT ON COLUMN pgq_queue.queue IS 'Where it waits. Pools serve queues.';
COMMENT ON COLUMN pgq_queue.func IS 'Dotted path of the function.';
COMMENT ON COLUMN pgq_queue.args IS 'Positional arguments, as tagged JSON.';
COMMENT ON COLUMN pgq_queue.kwargs IS 'Keyword arguments, as tagged JSON.';
COMMENT ON COLUMN pgq_queue.options IS 'Options that are no columns, by name.';
COMMENT ON COLUMN pgq_queue.name IS 'Given by the caller. NULL: Python makes one of the id.';
COMMENT ON COLUMN pgq_queue."group" IS 'Label of tasks whose results are asked for together.';
COMMENT ON COLUMN pgq_queue.hook IS 'Dotted path of the function that is called with the finished task.';
COMMENT ON COLUMN pgq_queue.schedule IS 'Id of the schedule that enqueued it.';
COMMENT ON COLUMN pgq_queue.slot IS 'The instant for which that schedule fired.';
COMMENT ON COLUMN pgq_queue.signature IS
    'HMAC of Python over what is to be run. NULL: written by hand, so only a registered function is run.';
COMMENT ON COLUMN pgq_queue.enqueued_at IS 'When the row was written (clock of the database).';
COMMENT ON COLUMN pgq_queue.worker IS 'Id of the worker that holds it. NULL: not running.';
COMMENT ON COLUMN pgq_queue.position IS 'FIFO ticket, drawn anew whenever the row becomes ready.';
COMMENT ON COLUMN pgq_queue.run_after IS 'Not before this time. NULL once due: upkeep clears it.';
COMMENT ON COLUMN pgq_queue.remaining IS 'Waits until so many other tasks have settled (a group collector). NULL when it waits for none.';
COMMENT ON COLUMN pgq_queue.parked IS 'Why this row cannot run. Clear it to release the row.';
COMMENT ON COLUMN pgq_queue.attempts IS 'How many times the task was started, crashes included.';
COMMENT ON COLUMN pgq_queue.crashes IS 'How many of the attempts ended with the death of the worker.';
COMMENT ON COLUMN pgq_queue.max_attempts IS 'How many attempts may fail by an exception; 0: no limit.';
COMMENT ON COLUMN pgq_queue.lock IS 'When the lease was granted or last renewed (clock of the database). NULL: not running.';
COMMENT ON COLUMN pgq_queue.receipt IS 'Proof of the claim: every write about the task must carry it.';
COMMENT ON COLUMN pgq_queue.history IS 'Earlier attempts: when, where, and what went wrong.';
COMMENT ON COLUMN pgq_queue.timeout IS 'Seconds one attempt may run.';

-- What a claim reads: the ready rows of a lane in order. The predicate is repeated in claim.sql.
CREATE INDEX IF NOT EXISTS pgq_queue_ready ON pgq_queue (queue, priority, position)
    WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL;
-- What rescue and renewal read: leases, oldest first.
CREATE INDEX IF NOT EXISTS pgq_queue_lock ON pgq_queue (lock) WHERE lock IS NOT NULL;
-- What the tick reads: times, soonest first.
CREATE INDEX IF NOT EXISTS pgq_queue_due ON pgq_queue (run_after) WHERE run_after IS NOT NULL;
CREATE INDEX IF NOT EXISTS pgq_queue_group ON pgq_queue ("group") WHERE "group" IS NOT NULL;
CREATE INDEX IF NOT EXISTS pgq_queue_name ON pgq_queue (name) WHERE name IS NOT NULL;
CREATE INDEX IF NOT EXISTS pgq_queue_parked ON pgq_queue (id) WHERE parked IS NOT NULL;
-- A slot of a schedule is enqueued once, even if two pools take themselves for the leader.
CREATE UNIQUE INDEX IF NOT EXISTS pgq_queue_slot ON pgq_queue (schedule, slot) WHERE schedule IS NOT NULL;

CREATE TABLE IF NOT EXISTS pgq_lane (
    queue     text COLLATE "C" NOT NULL,
    priority  smallint NOT NULL DEFAULT 0,
    low       bigint   NOT NULL DEFAULT 0,
    paused    boolean  NOT NULL DEFAULT false,
    PRIMARY KEY (queue, priority)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 200);
COMMENT ON TABLE pgq_lane IS 'One row for each queue and priority in use; claims go lane by lane.';
COMMENT ON COLUMN pgq_lane.queue IS 'Name of the queue.';
COMMENT ON COLUMN pgq_lane.priority IS 'Priority of its tasks.';
COMMENT ON COLUMN pgq_lane.low IS 'Watermark: no ready row of this lane has a position at or below it.';
COMMENT ON COLUMN pgq_lane.paused IS 'If set on any lane of a queue, no worker claims from that queue.';
-- What a claim reads: the lanes of a priority in a circle, by name.
CREATE INDEX IF NOT EXISTS pgq_lane_ring ON pgq_lane (priority, queue);
CREATE INDEX IF NOT EXISTS pgq_lane_paused ON pgq_lane (queue) WHERE paused;

CREATE TABLE IF NOT EXISTS pgq_task (
    id            uuid             PRIMARY KEY,
    success       boolean          NOT NULL,
    attempt_count smallint         NOT NULL DEFAULT 0,
    priority      smallint         NOT NULL DEFAULT 0,
    max_attempts  integer          NOT NULL DEFAULT 1,
    timeout       double precision,
    started       timestamptz      NOT NULL,
    stopped       timestamptz      NOT NULL,
    enqueued_at   timestamptz      NOT NULL,
    func          text             NOT NULL,
    queue         text             NOT NULL,
    args          jsonb            NOT NULL DEFAULT '[]',
    kwargs        jsonb            NOT NULL DEFAULT '{}',
    options       jsonb            NOT NULL DEFAULT '{}',
    result        jsonb,
    name          text,
    "group"       text,
    hook          text,
    cluster       text,
    worker        uuid,
    schedule      bigint,
    exception     text,
    message       text,
    traceback     text,
    signature     bytea,
    history       jsonb            NOT NULL DEFAULT '[]',
    CONSTRAINT pgq_task_outcome_check CHECK (success = (exception IS NULL)),
    CONSTRAINT pgq_task_times_check   CHECK (least(enqueued_at, started, stopped) > '0001-01-02 00:00Z'
                                             AND greatest(enqueued_at, started, stopped) < '9999-12-30 00:00Z')
) PARTITION BY RANGE (id);
COMMENT ON TABLE pgq_task IS 'Finished tasks with their results, partitioned by the time in their ids.';
COMMENT ON COLUMN pgq_task.id IS 'That of the queued task.';
COMMENT ON COLUMN pgq_task.success IS 'Whether the function returned; false: it failed, or was cancelled.';
COMMENT ON COLUMN pgq_task.attempt_count IS 'How many attempts there were.';
COMMENT ON COLUMN pgq_task.priority IS 'That of the queued task.';
COMMENT ON COLUMN pgq_task.max_attempts IS 'That of the queued task.';
COMMENT ON COLUMN pgq_task.timeout IS 'Seconds one attempt could run. NULL: no limit.';
COMMENT ON COLUMN pgq_task.started IS 'When the last attempt began.';
COMMENT ON COLUMN pgq_task.stopped IS 'When it ended.';
COMMENT ON COLUMN pgq_task.enqueued_at IS 'When the task was enqueued.';
COMMENT ON COLUMN pgq_task.func IS 'Dotted path of the function.';
COMMENT ON COLUMN pgq_task.queue IS 'Where it waited.';
COMMENT ON COLUMN pgq_task.args IS 'Positional arguments, as tagged JSON.';
COMMENT ON COLUMN pgq_task.kwargs IS 'Keyword arguments, as tagged JSON.';
COMMENT ON COLUMN pgq_task.options IS 'Options that are no columns, by name.';
COMMENT ON COLUMN pgq_task.result IS 'What the function returned, as tagged JSON. NULL: of a failure.';
COMMENT ON COLUMN pgq_task.name IS 'Given by the caller. NULL: Python makes one of the id.';
COMMENT ON COLUMN pgq_task."group" IS 'Label of tasks whose results are asked for together.';
COMMENT ON COLUMN pgq_task.hook IS 'Dotted path of the function that is called with the finished task.';
COMMENT ON COLUMN pgq_task.cluster IS 'Name of the pool that ran it last.';
COMMENT ON COLUMN pgq_task.worker IS 'Id of the worker that ran it last.';
COMMENT ON COLUMN pgq_task.schedule IS 'Id of the schedule that enqueued it.';
COMMENT ON COLUMN pgq_task.message IS 'Text of that exception.';
COMMENT ON COLUMN pgq_task.traceback IS 'Its traceback, as text.';
COMMENT ON COLUMN pgq_task.history IS 'Earlier attempts: when, where, and what went wrong.';
COMMENT ON COLUMN pgq_task.signature IS 'That of the queued row, so that a retry can prove where the task came from.';
COMMENT ON COLUMN pgq_task.exception IS 'Dotted path of the exception a failed task ended with.';
CREATE INDEX IF NOT EXISTS pgq_task_failure ON pgq_task (id) WHERE NOT success;
CREATE INDEX IF NOT EXISTS pgq_task_group ON pgq_task ("group", id) WHERE "group" IS NOT NULL;
CREATE INDEX IF NOT EXISTS pgq_task_name ON pgq_task (name) WHERE name IS NOT NULL;
-- Until when a finished task is kept by its own option, in Unix seconds; NULL: as the settings say. It never raises, whatever
-- psql wrote there, since settling computes it. (The epoch of a timestamptz depends on no setting.)
CREATE OR REPLACE FUNCTION pgq_kept_until(options jsonb, stopped timestamptz) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(options -> 'keep') = 'number'
                THEN extract(epoch FROM stopped)::float8
                     + least(greatest((options ->> 'keep')::numeric, 0), 31536000000)::float8 END
$$;
COMMENT ON FUNCTION pgq_kept_until IS 'Unix seconds until which a finished task is kept by its option "keep". NULL: it has none.';
CREATE INDEX IF NOT EXISTS pgq_task_keep ON pgq_task (pgq_kept_until(options, stopped), id) WHERE options ? 'keep';
CREATE INDEX IF NOT EXISTS pgq_task_schedule ON pgq_task (schedule, id) WHERE schedule IS NOT NULL;

-- Written at most once a second for each worker while its tasks run, each time a new version of the row: leave it room.
CREATE TABLE IF NOT EXISTS pgq_progress (
    task        uuid             PRIMARY KEY,
    done        double precision,
    total       double precision,
    text        text,
    log         jsonb            NOT NULL DEFAULT '[]',
    updated_at  timestamptz      NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pgq_progress_log_check   CHECK (jsonb_typeof(log) = 'array'),
    CONSTRAINT pgq_progress_times_check CHECK (updated_at > '0001-01-02 00:00Z' AND updated_at < '9999-12-30 00:00Z')
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_progress IS 'What running and finished tasks say of themselves: how far they are, and their last log lines.';
COMMENT ON COLUMN pgq_progress.task IS 'Id of the task.';
COMMENT ON COLUMN pgq_progress.text IS 'What it does at present, as it says.';
COMMENT ON COLUMN pgq_progress.updated_at IS 'When this was written last.';
COMMENT ON COLUMN pgq_progress.done IS 'How much is done, in units of the task''s own. NULL: it has only logged.';
COMMENT ON COLUMN pgq_progress.total IS 'How much there is to do. NULL: not known.';
COMMENT ON COLUMN pgq_progress.log IS 'Objects with at, level, attempt and message: the last 200 of all attempts, 64 kB at most.';

-- Settling copies what is large from one table to the other, and PostgreSQL tries to compress it once more: with its own
-- pglz that takes six times as long as all the rest. Before the first partition, since partitions take it over.
-- Not a second time, nor on a server built without lz4: by now this transaction has weaker locks of these tables, and to
-- wait for the strongest beside a pool that works may end in a deadlock.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals))
       OR EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = 'pgq_queue'::regclass AND attname = 'args' AND attcompression = 'l') THEN
        RETURN;
    END IF;
    ALTER TABLE pgq_queue ALTER args SET COMPRESSION lz4, ALTER kwargs SET COMPRESSION lz4,
                          ALTER options SET COMPRESSION lz4, ALTER history SET COMPRESSION lz4;
    ALTER TABLE pgq_task ALTER args SET COMPRESSION lz4, ALTER kwargs SET COMPRESSION lz4,
                         ALTER options SET COMPRESSION lz4, ALTER history SET COMPRESSION lz4,
                         ALTER result SET COMPRESSION lz4, ALTER message SET COMPRESSION lz4,
                         ALTER traceback SET COMPRESSION lz4;
    ALTER TABLE pgq_progress ALTER log SET COMPRESSION lz4;
END $$;

-- Rows whose id carries a time far from now (made by hand, or from before the first partition).
CREATE TABLE IF NOT EXISTS pgq_task_other PARTITION OF pgq_task DEFAULT;

-- Makes the weekly partitions from this week to `ahead` from now; returns how many were new.
-- A week that already has rows in pgq_task_other cannot get its partition any more; it is left as it is.
CREATE OR REPLACE FUNCTION pgq_make_partitions(ahead interval DEFAULT '4 weeks') RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- Whichever role makes it, a partition belongs to the owner of the table, so that this role can drop it.
    owner regrole := (SELECT relowner FROM pg_class WHERE oid = 'pgq_task'::regclass);
    week timestamptz;
    partition text;
    made integer := 0;
BEGIN
    FOR week IN SELECT generate_series(date_trunc('week', now(), 'UTC'), now() + ahead, '7 days') LOOP
        partition := 'pgq_task_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        CONTINUE WHEN EXISTS (SELECT FROM pgq_task_other
                               WHERE id >= pgq_uuid7_floor(week) AND id < pgq_uuid7_floor(week + interval '7 days'));
        EXECUTE format('CREATE TABLE %I PARTITION OF pgq_task FOR VALUES FROM (%L) TO (%L)',
                       partition, pgq_uuid7_floor(week), pgq_uuid7_floor(week + interval '7 days'));
        EXECUTE format('ALTER TABLE %I OWNER TO %s', partition, owner);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION pgq_make_partitions(interval) IS 'Makes the weekly partitions of pgq_task up to that far ahead.';
SELECT pgq_make_partitions();

CREATE TABLE IF NOT EXISTS pgq_schedule (
    id                   bigint           PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    name                 text             UNIQUE,
    func                 text             NOT NULL,
    hook                 text,
    args                 jsonb            NOT NULL DEFAULT '[]',
    kwargs               jsonb            NOT NULL DEFAULT '{}',
    options              jsonb            NOT NULL DEFAULT '{}',
    queue                text,
    priority             smallint         NOT NULL DEFAULT 0,
    schedule_type        text             NOT NULL DEFAULT 'O',
    minutes              integer,
    seconds              double precision,
    cron                 text,
    repeats              integer          NOT NULL DEFAULT -1,
    next_run             timestamptz               DEFAULT now(),
    time_zone            text,
    catch_up             boolean,
    overlap              text             NOT NULL DEFAULT 'allow',
    jitter               double precision NOT NULL DEFAULT 0,
    paused               boolean          NOT NULL DEFAULT false,
    intended_date_kwarg  text,
    day                  smallint,
    wall_time            time,
    task                 uuid,
    last_slot            timestamptz,
    error                text,
    retry_at             timestamptz,
    signature            bytea,
    source               text,
    spec                 jsonb,
    release              text,
    auto_paused          boolean          NOT NULL DEFAULT false,
    stale_since          timestamptz,
    CONSTRAINT pgq_schedule_func_check     CHECK (func <> ''),
    CONSTRAINT pgq_schedule_args_check     CHECK (jsonb_typeof(args) = 'array'),
    CONSTRAINT pgq_schedule_kwargs_check   CHECK (jsonb_typeof(kwargs) = 'object'),
    CONSTRAINT pgq_schedule_options_check  CHECK (jsonb_typeof(options) = 'object'),
    CONSTRAINT pgq_schedule_type_check     CHECK (schedule_type IN ('O','S','I','H','D','W','BW','M','BM','Q','Y','C')),
    CONSTRAINT pgq_schedule_minutes_check  CHECK (minutes > 0),
    CONSTRAINT pgq_schedule_seconds_check  CHECK (seconds > 0),
    CONSTRAINT pgq_schedule_overlap_check  CHECK (overlap IN ('allow','skip','queue_one')),
    CONSTRAINT pgq_schedule_jitter_check   CHECK (jitter >= 0),
    CONSTRAINT pgq_schedule_day_check      CHECK (day BETWEEN 1 AND 31),
    -- Python has no 24:00, and one row that it cannot read would stop all schedules.
    CONSTRAINT pgq_schedule_wall_check     CHECK (wall_time < '24:00'),
    CONSTRAINT pgq_schedule_times_check    CHECK (least(next_run, last_slot) > '0001-01-02 00:00Z'
                                                  AND greatest(next_run, last_slot) < '9999-12-30 00:00Z')
);
COMMENT ON TABLE pgq_schedule IS 'Schedules: what to enqueue, and when next.';
COMMENT ON COLUMN pgq_schedule.id IS 'Drawn from a sequence.';
COMMENT ON COLUMN pgq_schedule.name IS 'Unique. NULL: it has none.';
COMMENT ON COLUMN pgq_schedule.func IS 'Dotted path of the function that its tasks call.';
COMMENT ON COLUMN pgq_schedule.hook IS 'Dotted path of the function that is called with each finished task.';
COMMENT ON COLUMN pgq_schedule.args IS 'Positional arguments of its tasks, as tagged JSON.';
COMMENT ON COLUMN pgq_schedule.kwargs IS 'Keyword arguments of its tasks, as tagged JSON.';
COMMENT ON COLUMN pgq_schedule.options IS 'Options of its tasks that are no columns, by name.';
COMMENT ON COLUMN pgq_schedule.queue IS 'Where its tasks wait. NULL: as the function or the settings say.';
COMMENT ON COLUMN pgq_schedule.priority IS 'That of its tasks.';
COMMENT ON COLUMN pgq_schedule.schedule_type IS
    'O once, S seconds, I minutes, H hourly, D daily, W weekly, BW biweekly, M monthly, BM bimonthly, Q quarterly, Y yearly, C cron.';
COMMENT ON COLUMN pgq_schedule.minutes IS 'Of type I: the interval.';
COMMENT ON COLUMN pgq_schedule.seconds IS 'Of type S: the interval.';
COMMENT ON COLUMN pgq_schedule.cron IS 'Of type C: five fields, or six with seconds as the last.';
COMMENT ON COLUMN pgq_schedule.time_zone IS 'Whose days and hours are meant. NULL: as the settings say.';
COMMENT ON COLUMN pgq_schedule.catch_up IS
    'Whether missed slots are fired one by one; false: one task for all of them. NULL: as the settings say.';
COMMENT ON COLUMN pgq_schedule.overlap IS
    'What happens to a slot while a task of the schedule waits or runs: allow, skip, or queue_one.';
COMMENT ON COLUMN pgq_schedule.jitter IS 'Seconds by which each task is delayed at most, at random.';
COMMENT ON COLUMN pgq_schedule.paused IS 'Whether it does not fire.';
COMMENT ON COLUMN pgq_schedule.intended_date_kwarg IS 'Keyword argument of the function that is given the slot. NULL: none.';
COMMENT ON COLUMN pgq_schedule.task IS 'Id of the task that it enqueued last.';
COMMENT ON COLUMN pgq_schedule.last_slot IS 'The slot that was fired last.';
COMMENT ON COLUMN pgq_schedule.signature IS
    'HMAC of Python over what its tasks run. NULL: written by hand, so only a registered function is run.';
COMMENT ON COLUMN pgq_schedule.next_run IS 'The slot to fire next. NULL: never again.';
COMMENT ON COLUMN pgq_schedule.repeats IS 'How many more times; negative: for ever; 0: no more.';
COMMENT ON COLUMN pgq_schedule.day IS 'Day a schedule comes back to after a shorter month: of the month, or of the week (Monday 1).';
COMMENT ON COLUMN pgq_schedule.wall_time IS 'Local time a schedule comes back to after a clock change.';
COMMENT ON COLUMN pgq_schedule.error IS 'Why the last tick could not fire this schedule.';
COMMENT ON COLUMN pgq_schedule.retry_at IS 'When a schedule with an error is tried again; next_run stays, so no slot is lost.';
COMMENT ON COLUMN pgq_schedule.source IS 'Whose code it is kept in step with, by its name. NULL: none.';
COMMENT ON COLUMN pgq_schedule.spec IS 'What that code said when the row was last written from it; other values are an edit.';
COMMENT ON COLUMN pgq_schedule.release IS 'The release of that code.';
COMMENT ON COLUMN pgq_schedule.auto_paused IS 'Whether the code paused it, which may then resume it.';
COMMENT ON COLUMN pgq_schedule.stale_since IS 'Since when that code does not name it any more.';
CREATE INDEX IF NOT EXISTS pgq_schedule_due ON pgq_schedule (next_run) WHERE NOT paused AND repeats <> 0;

CREATE TABLE IF NOT EXISTS pgq_worker (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL,
    host        text        NOT NULL,
    pid         integer     NOT NULL,
    queues      text[],
    exclude_queues text[],
    status      text        NOT NULL DEFAULT 'starting',
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat   timestamptz NOT NULL DEFAULT clock_timestamp(),
    version     text        NOT NULL DEFAULT '',
    workers     jsonb       NOT NULL DEFAULT '[]',
    retry       double precision NOT NULL DEFAULT 60,
    clock_skew  double precision,
    stalled_since timestamptz,
    CONSTRAINT pgq_worker_status_check CHECK (status IN ('starting','working','idle','stopping','stopped'))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 200);
COMMENT ON TABLE pgq_worker IS 'Running pools: one row for each supervisor, with what its workers do now.';
COMMENT ON COLUMN pgq_worker.id IS 'Random, made anew at each start of the pool.';
COMMENT ON COLUMN pgq_worker.name IS 'That of the pool. Several may have it.';
COMMENT ON COLUMN pgq_worker.host IS 'Where it runs.';
COMMENT ON COLUMN pgq_worker.pid IS 'Process id of the supervisor there.';
COMMENT ON COLUMN pgq_worker.status IS 'starting, working, idle, stopping or stopped.';
COMMENT ON COLUMN pgq_worker.started_at IS 'When the pool started.';
COMMENT ON COLUMN pgq_worker.heartbeat IS 'When it was last heard of. Silent for 20 s: it counts as gone.';
COMMENT ON COLUMN pgq_worker.version IS 'Release of pgq that it runs.';
COMMENT ON COLUMN pgq_worker.workers IS 'What each worker does now: state, process id, task, for how long, counts.';
COMMENT ON COLUMN pgq_worker.queues IS 'The queues that it serves. NULL: all.';
COMMENT ON COLUMN pgq_worker.exclude_queues IS 'The queues that it does not serve. NULL: there are none of these.';
COMMENT ON COLUMN pgq_worker.retry IS 'Length of the leases of its tasks, in seconds.';
COMMENT ON COLUMN pgq_worker.clock_skew IS 'Seconds by which the clock of its host is ahead of the database''s.';
COMMENT ON COLUMN pgq_worker.stalled_since IS 'Since when ready tasks wait for this pool though a worker is free. NULL: none do.';

-- Wakes sleeping workers, if there are any. NOTIFY takes a lock of the whole cluster until after the
-- commit, and a full notification queue would fail the commit: so only if a worker sleeps and there is room.
-- A worker that misses a wake-up finds the row at the next poll.
CREATE OR REPLACE FUNCTION pgq_wake() RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF (SELECT last_value > extract(epoch FROM clock_timestamp()) * 1000 FROM pgq_sleep_until)
       AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('pgq_wake', '');
    END IF;
END
$$;

-- Once for each INSERT statement: makes sure of the lanes, then wakes sleepers.
CREATE OR REPLACE FUNCTION pgq_queue_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    fresh record;
    awaited boolean := false;
BEGIN
    FOR fresh IN SELECT n.queue, n.priority,
                        bool_or(n.run_after IS NULL AND n.remaining IS NULL AND n.parked IS NULL) AS ready
                   FROM inserted n GROUP BY n.queue, n.priority LOOP
        awaited := awaited OR fresh.ready;
        PERFORM FROM pgq_lane l WHERE l.queue = fresh.queue AND l.priority = fresh.priority;
        CONTINUE WHEN FOUND;
        -- ON CONFLICT would wait for another open transaction that makes the same lane. Leave it to that
        -- one; should it roll back, the sweep finds the rows and makes the lane.
        IF pg_try_advisory_xact_lock(hashtextextended('pgq_lane ' || fresh.priority || ' ' || fresh.queue, 0)) THEN
            INSERT INTO pgq_lane (queue, priority) VALUES (fresh.queue, fresh.priority) ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
    IF awaited THEN
        PERFORM pgq_wake();
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER pgq_queue_inserted AFTER INSERT ON pgq_queue
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION pgq_queue_inserted();

-- FROM CURRENT pins the search_path of the session that runs a file. It may hold "$user", and temporary tables come first in
-- it. Each file that makes functions ends with this: the schema of pgq's tables, with pg_temp after it, so that no other table
-- is taken for one of pgq's.
CREATE OR REPLACE FUNCTION pgq_pin_search_path() RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    home regnamespace := (SELECT relnamespace FROM pg_class WHERE oid = 'pgq_queue'::regclass);
    func regprocedure;
BEGIN
    FOR func IN SELECT oid FROM pg_proc
                 WHERE pronamespace = home AND proname LIKE 'pgq\_%' AND proconfig IS NOT NULL LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %s, pg_temp', func, home);
    END LOOP;
END
$$;
DO $$
BEGIN
    PERFORM pgq_pin_search_path();
END
$$;
