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
DROP FUNCTION IF EXISTS pgq_make_keyed, pgq_keyed_ready, pgq_set_limit, pgq_drop_limit;

-- The trigger as it is in 0001.
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
$functions$;
    PERFORM pgq_pin_search_path();
END
$undo$;
