-- Returns the newest id beyond the newest `keep` of one outcome; no row if there are not so many.
SELECT id
  FROM pgq_task
 WHERE success = %(success)s AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
 ORDER BY id DESC
OFFSET %(keep)s
 LIMIT 1
