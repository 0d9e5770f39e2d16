-- Undoes 0004.
SET LOCAL lock_timeout = '2s';
DROP INDEX IF EXISTS pgq_queue_cancelled;
DO $$
BEGIN
    -- 0001 may have been undone first.
    IF to_regclass('pgq_schema') IS NOT NULL THEN
        DELETE FROM pgq_schema WHERE version = 4;
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
