-- Returns what each queue had at the moments from one to another; of all queues together, the queue is empty.
SELECT at, queue, ready, running, waiting, parked, oldest_ready, workers, busy, paused, exact
  FROM pgq_gauge
 WHERE span = %(span)s AND at >= %(start)s AND at < %(end)s AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
   AND (%(keys)s::text[] IS NULL OR queue = ANY (%(keys)s::text[]))
 ORDER BY at, queue
 LIMIT %(limit)s
