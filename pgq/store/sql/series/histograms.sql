-- Returns how many runs, or waits, fell into each bucket, added up by {key} and by times of so many seconds (0: all).
SELECT at, key, first + n::integer - 1 AS bucket, sum(count)::bigint
  -- Key and time are computed for each row, not for each bucket of it.
  FROM (SELECT CASE WHEN %(step)s > 0 THEN to_timestamp(floor(extract(epoch FROM at) / nullif(%(step)s, 0)) * %(step)s)
                    ELSE %(start)s END AS at,
               {key} AS key, {which}_from AS first, {which}_hist AS counts
          FROM pgq_metric
         WHERE span = %(span)s AND at >= %(start)s AND at < %(end)s
           AND (%(queue)s::text IS NULL OR queue = %(queue)s::text) AND (%(func)s::text IS NULL OR func = %(func)s::text)
        OFFSET 0) m,
       unnest(counts) WITH ORDINALITY h (count, n)
 WHERE count > 0
 GROUP BY 1, 2, 3
 ORDER BY 1, 2, 3
 LIMIT %(limit)s
