-- Groups the failures of the last {limit} tasks that failed, by when they were enqueued: by function and exception.
SELECT func, exception, count(*) AS number, count(DISTINCT queue) AS queues,
       extract(epoch FROM clock_timestamp() - min(stopped))::float8 AS first,
       extract(epoch FROM clock_timestamp() - max(stopped))::float8 AS last,
       (array_agg(left(message, 300) ORDER BY stopped DESC))[1] AS message, (array_agg(id ORDER BY stopped DESC))[1] AS id
  FROM (SELECT id, func, exception, queue, stopped, message FROM pgq_task WHERE NOT success ORDER BY id DESC LIMIT {limit}) t
 GROUP BY func, exception
 ORDER BY number DESC, last
