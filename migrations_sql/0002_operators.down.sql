-- Undoes 0002.
DROP VIEW IF EXISTS pgq_running, pgq_schedule_next;
DROP FUNCTION IF EXISTS pgq_enqueue, pgq_cancel, pgq_retry, pgq_delete_results, pgq_pause, pgq_resume, pgq_check, pgq_is_named;
DO $$
BEGIN
    -- 0001 may have been undone first.
    IF to_regclass('pgq_schema') IS NOT NULL THEN
        DELETE FROM pgq_schema WHERE version = 2;
    END IF;
END
$$;
