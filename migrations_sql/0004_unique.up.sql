-- pgq 0004: unique tasks, tasks that expire, and tasks that are cancelled before they run.

-- If a long transaction holds one of pgq's tables, give up: all other sessions would queue behind this statement.
SET LOCAL lock_timeout = '2s';

INSERT INTO pgq_schema (version) VALUES (4) ON CONFLICT DO NOTHING;

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
