-- Makes those of some live tasks ready that are still in one of these states; returns of each whether it did.
WITH chosen AS MATERIALIZED (
     SELECT id
       FROM pgq_queue
      WHERE id = ANY (%(ids)s)
        AND CASE WHEN cancelled THEN 'cancelled' WHEN lock IS NOT NULL THEN 'running' WHEN parked IS NOT NULL THEN 'parked'
                 WHEN run_after IS NOT NULL OR remaining IS NOT NULL THEN 'waiting' ELSE 'ready' END = ANY (%(states)s)
      ORDER BY id
        FOR UPDATE SKIP LOCKED)
SELECT pgq_retry(id) FROM chosen
