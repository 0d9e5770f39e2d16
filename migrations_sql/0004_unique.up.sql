-- pgq 0004: unique tasks, tasks that expire, and tasks that are cancelled before they run.

-- If a long transaction holds one of pgq's tables, give up: all other sessions would queue behind this statement.
SET LOCAL lock_timeout = '2s';

INSERT INTO pgq_schema (version) VALUES (4) ON CONFLICT DO NOTHING;

-- Of what kind the key is, psql need not say: it is unique until a worker claims the task.
ALTER TABLE pgq_queue
    DROP CONSTRAINT IF EXISTS pgq_queue_unique_check,
    ADD CONSTRAINT pgq_queue_unique_check CHECK (unique_until IN ('start', 'end')
                                                 AND unique_key <> '' AND octet_length(unique_key) <= 1000);
COMMENT ON COLUMN pgq_queue.unique_until IS
    'Until when it is unique: start (the next claim) or end (it leaves the queue). NULL: as start. It stays when the key is gone.';

-- Of all live tasks one at most has a key. No statement gives a row its key but the INSERT: so no change of a task's state
-- can ever fail here.
CREATE UNIQUE INDEX IF NOT EXISTS pgq_queue_unique ON pgq_queue (unique_key) WHERE unique_key IS NOT NULL;

-- Keys that are taken for a time, whatever has become of the task.
CREATE TABLE IF NOT EXISTS pgq_unique (
    key    text COLLATE "C" PRIMARY KEY,
    task   uuid             NOT NULL,
    until  timestamptz      NOT NULL,
    CONSTRAINT pgq_unique_key_check   CHECK (key <> '' AND octet_length(key) <= 1000),
    CONSTRAINT pgq_unique_times_check CHECK (until > '0001-01-02 00:00Z' AND until < '9999-12-30 00:00Z')
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_unique IS 'Unique keys that are taken for a time: which task took each, and until when. Upkeep deletes them.';
CREATE INDEX IF NOT EXISTS pgq_unique_until ON pgq_unique (until);

-- What upkeep reads: tasks that have a time to start by, and have not started.
CREATE INDEX IF NOT EXISTS pgq_queue_expires ON pgq_queue (expires_at)
    WHERE expires_at IS NOT NULL AND lock IS NULL AND attempts = 0;
-- What upkeep reads: tasks that were cancelled and that no worker holds.
CREATE INDEX IF NOT EXISTS pgq_queue_cancelled ON pgq_queue (id) WHERE cancelled AND lock IS NULL;

-- A task that does not run ends here, in the caller's transaction, if nothing else has to be made for it: a hook, the next
-- link of a chain and a collector belong to Python, which alone can sign and verify them. A task that has one becomes ready
-- as cancelled: upkeep, or the worker that claims it, ends it within a moment, also if its queue is paused.
CREATE OR REPLACE FUNCTION pgq_cancel(task uuid) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held pgq_queue;
BEGIN
    SELECT * INTO held FROM pgq_queue q WHERE q.id = task FOR UPDATE;
    IF NOT FOUND THEN
        RETURN CASE WHEN EXISTS (SELECT FROM pgq_task t WHERE t.id = task) THEN 'finished' ELSE 'unknown' END;
    END IF;
    IF held.lock IS NOT NULL THEN
        UPDATE pgq_queue q SET cancelled = true WHERE q.id = task;
        PERFORM pg_notify('pgq_control', '');
        RETURN 'running';
    END IF;
    IF held.hook IS NOT NULL OR held.options ?| ARRAY['collector', 'chain_on_failure', 'cached', 'django'] THEN
        UPDATE pgq_queue q
           SET cancelled = true, run_after = NULL, remaining = NULL, parked = NULL, position = nextval('pgq_position')
         WHERE q.id = task;
        IF held.key IS NOT NULL THEN
            PERFORM pgq_keyed_ready(held.queue, held.key, held.priority);
        END IF;
        PERFORM pgq_wake();
        RETURN 'queued';
    END IF;
    DELETE FROM pgq_queue q WHERE q.id = task;
    INSERT INTO pgq_task (id, success, attempt_count, priority, max_attempts, timeout, started, stopped, enqueued_at, func,
                          queue, args, kwargs, options, name, "group", hook, schedule, exception, message, traceback,
                          signature, history, key)
    VALUES (held.id, false, held.attempts, held.priority, held.max_attempts, held.timeout, clock_timestamp(),
            clock_timestamp(), held.enqueued_at, held.func, held.queue, held.args, held.kwargs, held.options, held.name,
            held."group", held.hook, held.schedule, 'pgq.errors.TaskCancelled', 'the task was cancelled', '',
            held.signature, held.history, held.key)
    -- The id of a finished task: the row was inserted by hand. See settle.sql.
    ON CONFLICT (id) DO NOTHING;
    PERFORM pg_notify('pgq_settled', '')
       FROM pgq_wait_until
      WHERE last_value > extract(epoch FROM clock_timestamp()) * 1000 AND pg_notification_queue_usage() < 0.5;
    RETURN 'queued';
END
$$;
COMMENT ON FUNCTION pgq_cancel IS
    'Cancels a task. Returns queued (it has ended without running), running (it is being interrupted), finished (too late) '
    'or unknown.';

CREATE OR REPLACE FUNCTION pgq_retry(task uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old pgq_task;
    gone uuid;
    keeper text;
    ready record;
BEGIN
    -- The same task, by its id and signature, with all its attempts again; what went wrong goes into its history.
    SELECT * INTO old FROM pgq_task t WHERE t.id = task AND NOT EXISTS (SELECT FROM pgq_queue q WHERE q.id = task);
    IF FOUND THEN
        SELECT d.id, d.reference INTO gone, keeper FROM pgq_delete_results(ARRAY[task]) d;
        IF keeper IS NOT NULL THEN
            RAISE WARNING 'the finished task % is not run again: it would leave pgq_task, and % refers to it there', task,
                keeper USING HINT = 'Enqueue it anew, or let go of it there first.';
            RETURN NULL;
        END IF;
    END IF;
    -- Nothing was deleted if it was not there, or another session was faster.
    IF gone IS NOT NULL THEN
        INSERT INTO pgq_queue (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout,
                               max_attempts, schedule, slot, signature, enqueued_at, ready_at, history, key)
        VALUES (old.id, old.func, old.args, old.kwargs, old.options, old.queue, old.priority, old.name, old."group",
                old.hook, old.timeout, old.max_attempts, NULL, NULL, old.signature, old.enqueued_at,
                clock_timestamp(),
                CASE WHEN old.success THEN old.history ELSE old.history || (jsonb_build_object(
                    'exception', old.exception, 'message', old.message, 'traceback', old.traceback,
                    'attempt', old.attempt_count, 'worker', old.worker, 'at', old.stopped, 'started', old.started)
                    -- Another task may have its unique key by now.
                    || CASE WHEN old.options ? 'unique' THEN '{"unique": false}' ELSE '{}' END::jsonb) END, old.key);
        RETURN true;
    END IF;
    -- A parked or waiting task is made ready.
    UPDATE pgq_queue q
       SET parked = NULL, run_after = NULL, position = nextval('pgq_position'),
           ready_at = clock_timestamp()
     WHERE q.id = task AND q.lock IS NULL AND (q.parked IS NOT NULL OR q.run_after IS NOT NULL)
    RETURNING q.queue, q.key, q.priority INTO ready;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF ready.key IS NOT NULL THEN
        PERFORM pgq_keyed_ready(ready.queue, ready.key, ready.priority);
    END IF;
    PERFORM pgq_wake();
    RETURN true;
END
$$;

-- FROM CURRENT pinned the search_path of the session that ran this file. It may hold "$user", and temporary tables come
-- first in it. The schema of pgq's tables, with pg_temp after it: so no other table is taken for one of pgq's.
DO $$
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
