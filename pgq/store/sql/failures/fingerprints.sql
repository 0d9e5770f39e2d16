-- Groups the {limit} failures that were enqueued last by what they have in common, the most recent group first: function,
-- exception, and message without its numbers; how many, when first and last, how long they ran, and the message of the last.
SELECT fingerprint, func, exception, count(*) AS count, min(stopped) AS first, max(stopped) AS last,
       avg(seconds)::float8 AS seconds, (array_agg(message ORDER BY id DESC))[1] AS message,
       array_agg(DISTINCT queue) AS queues
  FROM (SELECT id, func, queue, coalesce(exception, '') AS exception, left(message, 200) AS message, stopped,
               extract(epoch FROM stopped - started) AS seconds,
               pgq_fingerprint(func, coalesce(exception, ''), left(message, 200)) AS fingerprint
          FROM pgq_task
         WHERE NOT success
         ORDER BY id DESC
         LIMIT {limit}) newest
 WHERE fingerprint = coalesce(%(fingerprint)s, fingerprint) AND func = coalesce(%(func)s, func)
 GROUP BY fingerprint, func, exception
 ORDER BY max(stopped) DESC
 LIMIT %(most)s
