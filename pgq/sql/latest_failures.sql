-- The failures of the tasks enqueued last.
SELECT id, name, func, queue, exception, left(message, 300), extract(epoch FROM clock_timestamp() - stopped)::float8
  FROM pgq_task
 WHERE NOT success
 ORDER BY id DESC
 LIMIT %(limit)s
