-- Undoes 0006.
DROP FUNCTION IF EXISTS pgq_why, pgq_span;
DO $$
BEGIN
    -- 0001 may have been undone first.
    IF to_regclass('pgq_schema') IS NOT NULL THEN
        DELETE FROM pgq_schema WHERE version = 6;
    END IF;
END
$$;
