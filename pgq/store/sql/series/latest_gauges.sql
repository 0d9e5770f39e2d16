-- Returns what each queue had when that was last looked at, all queues together first.
SELECT at, queue, ready, running, waiting, parked, oldest_ready, workers, busy, paused, exact
  FROM pgq_gauge
 WHERE span = 1 AND at = (SELECT max(at) FROM pgq_gauge WHERE span = 1)
 ORDER BY queue
 LIMIT %(limit)s
