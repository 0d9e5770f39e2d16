-- Returns the running tasks of these workers that were cancelled.
SELECT id, worker
  FROM pgq_queue
 -- `since` may be of before the clock was set back.
 WHERE lock >= least(%(since)s, statement_timestamp() - interval '30 seconds') AND worker = ANY (%(workers)s) AND cancelled
