-- Returns the queues that had the most of {what}, all looks from one moment to another together.
SELECT queue
  FROM pgq_gauge
 WHERE span = %(span)s AND at >= %(start)s AND at < %(end)s AND queue <> ''
 GROUP BY queue
 ORDER BY sum({what}) DESC NULLS LAST, queue
 LIMIT %(limit)s
