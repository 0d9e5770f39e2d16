-- Returns the marks from one moment to another, the newest first.
SELECT id, at, label, kind, author
  FROM pgq_mark
 WHERE at >= %(start)s AND at < %(end)s
 ORDER BY at DESC
 LIMIT %(limit)s
