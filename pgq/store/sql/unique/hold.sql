-- Locks a live task, by its id or its unique key, and returns what is to be known of it. It waits for a claim, for an instant.
SELECT q.id, q.lock IS NOT NULL AS runs,
       q.parked IS NOT NULL OR q.remaining IS NOT NULL OR q.cancelled OR q.options ? 'collector' AS stands, q.run_after,
       q.enqueued_at, q.queue, q.priority, q.key, clock_timestamp() AS now
  FROM pgq_queue q
 WHERE q.{column} = %(value)s
   FOR UPDATE
