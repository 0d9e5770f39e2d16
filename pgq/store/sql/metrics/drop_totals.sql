-- Deletes the counters of functions of which nothing was settled for so many days. Returns how many.
WITH gone AS (
    DELETE FROM pgq_total WHERE updated_at < statement_timestamp() - %(days)s * interval '1 day' RETURNING 1
)
SELECT count(*) FROM gone
