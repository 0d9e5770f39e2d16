-- Undoes 0005.
DROP VIEW IF EXISTS pgq_rates, pgq_functions, pgq_queue_depth, pgq_failures_by_function;
DROP FUNCTION IF EXISTS pgq_mark, pgq_quantile, pgq_hist_add, pgq_bucket;
DROP TABLE IF EXISTS pgq_finding, pgq_mark, pgq_gauge, pgq_total, pgq_metric, pgq_metric_raw;
ALTER TABLE IF EXISTS pgq_queue DROP COLUMN IF EXISTS ready_at;
DO $$
BEGIN
    -- 0001 may have been undone first.
    IF to_regclass('pgq_schema') IS NOT NULL THEN
        DELETE FROM pgq_schema WHERE version = 5;
    END IF;
END
$$;
