-- Sets leases that lie in the future to the present. The clock was set back since they were granted: they would not be
-- renewed, nor run out, until it has caught up. 1000 at most.
WITH ahead AS MATERIALIZED (
    SELECT id
      FROM pgq_queue
     WHERE lock > statement_timestamp() + interval '1 second'
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
)
UPDATE pgq_queue q SET lock = clock_timestamp() FROM ahead WHERE q.id = ahead.id
