-- Deletes what was added up so long ago that no worker will send it again. Returns how many rows.
WITH old AS (
    SELECT worker, seq FROM pgq_metric_raw
     WHERE folded < clock_timestamp() - %(age)s * interval '1 second'
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM pgq_metric_raw m USING old WHERE m.worker = old.worker AND m.seq = old.seq RETURNING 1
)
SELECT count(*) FROM gone
