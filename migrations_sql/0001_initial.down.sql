-- Undoes 0001. Takes all tasks, results and schedules with it.
DROP TABLE IF EXISTS pgq_queue, pgq_lane, pgq_task, pgq_progress, pgq_schedule, pgq_worker;
DROP FUNCTION IF EXISTS pgq_queue_inserted(), pgq_wake(), pgq_make_partitions(interval),
    pgq_uuid7(timestamptz), pgq_uuid7_floor(timestamptz), pgq_kept_until(jsonb, timestamptz), pgq_pin_search_path();
DROP SEQUENCE IF EXISTS pgq_position, pgq_sleep_until, pgq_wait_until;
DROP TABLE IF EXISTS pgq_schema;
