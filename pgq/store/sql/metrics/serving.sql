-- Returns the pools that were heard of in the last so many seconds: how many workers, and what they serve.
SELECT jsonb_array_length(workers) AS workers, queues, exclude_queues
  FROM pgq_worker
 WHERE heartbeat > statement_timestamp() - %(alive)s * interval '1 second' AND status <> 'stopped'
   AND jsonb_typeof(workers) = 'array'
