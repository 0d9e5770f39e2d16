-- Returns the failures of the tasks that were enqueued last.
SELECT id, name, func, queue, exception, left(message, 300) AS message,
       extract(epoch FROM clock_timestamp() - stopped)::float8 AS seconds
  FROM pgq_task
 WHERE NOT success
 ORDER BY id DESC
 LIMIT %(limit)s
