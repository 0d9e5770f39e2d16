-- Estimates the ready tasks of each queue from a sample of the pages of the table.
SELECT q.queue, round(count(*) / sample.share)::bigint AS ready
  FROM (SELECT least(1, %(pages)s * current_setting('block_size')::float8
                        / greatest(pg_relation_size('pgq_queue'), 1)) AS share) sample
 CROSS JOIN LATERAL (
       SELECT queue FROM pgq_queue TABLESAMPLE SYSTEM (100 * sample.share)
        WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL) q
 GROUP BY q.queue, sample.share
