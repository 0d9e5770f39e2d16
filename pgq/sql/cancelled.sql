-- The running tasks of these workers that somebody has cancelled.
SELECT id, worker
  FROM pgq_queue
 WHERE lock >= %(since)s AND worker = ANY (%(workers)s) AND cancelled
