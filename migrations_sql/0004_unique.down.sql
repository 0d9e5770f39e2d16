-- Undoes 0004.
SET LOCAL lock_timeout = '2s';
DROP INDEX IF EXISTS pgq_queue_cancelled, pgq_queue_expires, pgq_queue_unique;
DROP TABLE IF EXISTS pgq_unique;
DO $$
BEGIN
    -- 0001 may have been undone first.
    IF to_regclass('pgq_schema') IS NOT NULL THEN
        DELETE FROM pgq_schema WHERE version = 4;
    END IF;
    IF to_regclass('pgq_queue') IS NOT NULL THEN
        -- What 0003 wants: both or none.
        UPDATE pgq_queue SET unique_until = CASE WHEN unique_key IS NOT NULL THEN coalesce(unique_until, 'start') END
         WHERE (unique_key IS NULL) <> (unique_until IS NULL);
        ALTER TABLE pgq_queue
            DROP CONSTRAINT IF EXISTS pgq_queue_unique_check,
            ADD CONSTRAINT pgq_queue_unique_check CHECK ((unique_key IS NULL) = (unique_until IS NULL)
                                                         AND unique_until IN ('start', 'end')
                                                         AND unique_key <> '' AND octet_length(unique_key) <= 1000);
    END IF;
END
$$;

-- The functions as they are in 0003.
DO $undo$
BEGIN
    IF to_regclass('pgq_queue') IS NULL THEN
        RETURN;
    END IF;
    EXECUTE $functions$
CREATE OR REPLACE FUNCTION pgq_cancel(task uuid) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    found record;
BEGIN
    -- A queued task becomes ready: the worker that claims it settles it without running it, so that hooks, chains and
    -- groups follow it in the same way as any other end.
    UPDATE pgq_queue q
       SET cancelled = true, run_after = NULL, remaining = NULL, parked = NULL,
           position = CASE WHEN q.lock IS NULL THEN nextval('pgq_position') ELSE q.position END
     WHERE q.id = task
    RETURNING q.lock IS NOT NULL AS running, q.queue, q.key, q.priority INTO found;
    IF NOT FOUND THEN
        RETURN CASE WHEN EXISTS (SELECT FROM pgq_task t WHERE t.id = task) THEN 'finished' ELSE 'unknown' END;
    END IF;
    IF found.running THEN
        PERFORM pg_notify('pgq_control', '');
        RETURN 'running';
    END IF;
    IF found.key IS NOT NULL THEN
        PERFORM pgq_keyed_ready(found.queue, found.key, found.priority);
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
                CASE WHEN old.success THEN old.history ELSE old.history || jsonb_build_object(
                    'exception', old.exception, 'message', old.message, 'traceback', old.traceback,
                    'attempt', old.attempt_count, 'worker', old.worker, 'at', old.stopped, 'started', old.started) END, old.key);
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
$functions$;
END
$undo$;
