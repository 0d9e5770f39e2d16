-- Returns the first bucket that something fell into, and the one behind the last, for each histogram of {ends}.
SELECT {ends}
  FROM pgq_metric
 WHERE span = %(span)s AND at >= %(start)s AND at < %(end)s
   AND (%(queue)s::text IS NULL OR queue = %(queue)s::text) AND (%(func)s::text IS NULL OR func = %(func)s::text)
