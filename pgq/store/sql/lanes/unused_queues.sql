-- Returns those of the given queues to which nothing has been enqueued yet, and which no schedule names.
SELECT wanted.queue
  FROM unnest(%(queues)s::text[]) AS wanted (queue)
 WHERE NOT EXISTS (SELECT FROM pgq_lane AS l WHERE l.queue = wanted.queue)
   AND NOT EXISTS (SELECT FROM pgq_keyed AS k WHERE k.queue = wanted.queue)
   AND NOT EXISTS (SELECT FROM pgq_schedule AS s WHERE s.queue = wanted.queue)
