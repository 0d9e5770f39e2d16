-- Undoes 0003. Takes the keys of tasks and all limits with it.
SET LOCAL lock_timeout = '2s';
DO $$
BEGIN
    -- 0001 may have been undone first.
    IF to_regclass('pgq_queue') IS NOT NULL THEN
        ALTER TABLE pgq_queue DROP CONSTRAINT IF EXISTS pgq_queue_times_check;
        -- With a column go its indexes and constraints.
        ALTER TABLE pgq_queue DROP COLUMN IF EXISTS key, DROP COLUMN IF EXISTS strand, DROP COLUMN IF EXISTS unique_key,
            DROP COLUMN IF EXISTS unique_until, DROP COLUMN IF EXISTS expires_at,
            ADD CONSTRAINT pgq_queue_times_check CHECK (least(enqueued_at, run_after, lock, slot) > '0001-01-02 00:00Z'
                AND greatest(enqueued_at, run_after, lock, slot) < '9999-12-30 00:00Z');
        DROP INDEX IF EXISTS pgq_queue_ready;
        CREATE INDEX pgq_queue_ready ON pgq_queue (queue, priority, position)
            WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL;
        ALTER TABLE pgq_task DROP COLUMN IF EXISTS key;
        DELETE FROM pgq_schema WHERE version = 3;
    END IF;
END
$$;
DROP TABLE IF EXISTS pgq_keyed, pgq_limit, pgq_rate;
DROP SEQUENCE IF EXISTS pgq_strand, pgq_strand_low, pgq_keyed_missed;
DROP FUNCTION IF EXISTS pgq_make_keyed, pgq_keyed_ready, pgq_set_limit, pgq_drop_limit,
    pgq_enqueue(text, jsonb, jsonb, text, smallint, timestamptz, text, integer, double precision, text);

-- The functions as they are in 0001 and 0002.
DO $undo$
BEGIN
    IF to_regclass('pgq_queue') IS NULL THEN
        RETURN;
    END IF;
    EXECUTE $functions$
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

CREATE OR REPLACE FUNCTION pgq_enqueue(
    func text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority smallint DEFAULT 0, run_after timestamptz DEFAULT NULL, name text DEFAULT NULL,
    max_attempts integer DEFAULT 1, timeout double precision DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- Not RETURNING, which needs the right to read the table: a producer has none (see roles.sql).
    task uuid := pgq_uuid7();
BEGIN
    INSERT INTO pgq_queue (id, func, args, kwargs, queue, priority, run_after, name, max_attempts, timeout)
    VALUES (task, func, args, kwargs, queue, priority, CASE WHEN run_after > clock_timestamp() THEN run_after END, name,
            max_attempts, timeout);
    RETURN task;
END
$$;
COMMENT ON FUNCTION pgq_enqueue IS 'Enqueues a task; func must be registered with @task. Returns its id.';

CREATE OR REPLACE FUNCTION pgq_cancel(task uuid) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    running boolean;
BEGIN
    -- A queued task becomes ready: the worker that claims it settles it without running it, so that hooks, chains and
    -- groups follow it in the same way as any other end.
    UPDATE pgq_queue q
       SET cancelled = true, run_after = NULL, remaining = NULL, parked = NULL,
           position = CASE WHEN q.lock IS NULL THEN nextval('pgq_position') ELSE q.position END
     WHERE q.id = task
    RETURNING q.lock IS NOT NULL INTO running;
    IF NOT FOUND THEN
        RETURN CASE WHEN EXISTS (SELECT FROM pgq_task t WHERE t.id = task) THEN 'finished' ELSE 'unknown' END;
    END IF;
    IF running THEN
        PERFORM pg_notify('pgq_control', '');
        RETURN 'running';
    END IF;
    PERFORM pgq_wake();
    RETURN 'queued';
END
$$;

CREATE OR REPLACE FUNCTION pgq_retry(task uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old pgq_task;
    gone uuid;
    keeper text;
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
                               max_attempts, schedule, slot, signature, enqueued_at, ready_at, history)
        VALUES (old.id, old.func, old.args, old.kwargs, old.options, old.queue, old.priority, old.name, old."group",
                old.hook, old.timeout, old.max_attempts, NULL, NULL, old.signature, old.enqueued_at,
                clock_timestamp(),
                CASE WHEN old.success THEN old.history ELSE old.history || jsonb_build_object(
                    'exception', old.exception, 'message', old.message, 'traceback', old.traceback,
                    'attempt', old.attempt_count, 'worker', old.worker, 'at', old.stopped, 'started', old.started) END);
        RETURN true;
    END IF;
    -- A parked or waiting task is made ready.
    UPDATE pgq_queue q
       SET parked = NULL, run_after = NULL, position = nextval('pgq_position'),
           ready_at = clock_timestamp()
     WHERE q.id = task AND q.lock IS NULL AND (q.parked IS NOT NULL OR q.run_after IS NOT NULL);
    IF FOUND THEN
        PERFORM pgq_wake();
    END IF;
    RETURN FOUND;
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
$functions$;
END
$undo$;
