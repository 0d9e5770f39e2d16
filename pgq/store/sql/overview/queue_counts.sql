-- Counts the tasks that are ready, running, waiting for a time, waiting for other tasks, parked; each up to {limit}, by the
-- index that has them, so a queue of millions costs no more than a short one. Last: the size that PostgreSQL estimates.
-- Tasks with a key have an index of their own.
SELECT (SELECT count(*) FROM (SELECT * FROM (SELECT 1 FROM pgq_queue
                                              WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL
                                                AND remaining IS NULL AND key IS NULL LIMIT {limit}) plain
                               UNION ALL
                              SELECT * FROM (SELECT 1 FROM pgq_queue
                                              WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL
                                                AND remaining IS NULL AND key IS NOT NULL LIMIT {limit}) keyed
                               LIMIT {limit}) x) AS ready,
       (SELECT count(*) FROM (SELECT FROM pgq_queue WHERE lock IS NOT NULL ORDER BY lock LIMIT {limit}) x) AS running,
       (SELECT count(*) FROM (SELECT FROM pgq_queue
                               WHERE run_after IS NOT NULL AND parked IS NULL ORDER BY run_after LIMIT {limit}) x) AS waiting,
       -- No index has the collectors: among the first rows only.
       (SELECT count(*) FILTER (WHERE remaining IS NOT NULL AND run_after IS NULL AND parked IS NULL)
          FROM (SELECT remaining, run_after, parked FROM pgq_queue LIMIT {limit}) x) AS collecting,
       (SELECT count(*) FROM (SELECT FROM pgq_queue WHERE parked IS NOT NULL ORDER BY id LIMIT {limit}) x) AS parked,
       (SELECT reltuples::bigint FROM pg_class WHERE oid = 'pgq_queue'::regclass) AS estimate
