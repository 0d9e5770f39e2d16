-- Returns, newest first, those of the {limit} failures that were enqueued last which have that fingerprint.
SELECT id, name, queue, stopped, message
  FROM (SELECT id, name, func, queue, coalesce(exception, '') AS exception, left(message, 200) AS message, stopped
          FROM pgq_task
         WHERE NOT success
         ORDER BY id DESC
         LIMIT {limit}) newest
 WHERE pgq_fingerprint(func, exception, message) = %(fingerprint)s
 ORDER BY id DESC
 LIMIT %(most)s
