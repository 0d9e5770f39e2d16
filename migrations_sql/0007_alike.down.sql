-- Undoes 0007.
DROP FUNCTION IF EXISTS pgq_fingerprint, pgq_message_pattern;
DO $$
BEGIN
    -- 0001 may have been undone first.
    IF to_regclass('pgq_schema') IS NOT NULL THEN
        DELETE FROM pgq_schema WHERE version = 7;
    END IF;
END
$$;
