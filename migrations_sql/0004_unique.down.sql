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
