-- Returns how many runs, or waits, fell into each bucket, added up by {key} and by times of so many seconds (0: all).
-- {sums} has an array for each histogram, a sum for each bucket. To unnest what rows hold and add that up takes twice as long.
SELECT at, key, {sums}
  -- Key and time are computed once for each row.
  FROM (SELECT CASE WHEN %(step)s > 0 THEN to_timestamp(floor(extract(epoch FROM at) / nullif(%(step)s, 0)) * %(step)s)
                    ELSE %(start)s END AS at,
               {key} AS key, run_from, run_hist, wait_from, wait_hist
          FROM pgq_metric
         WHERE span = %(span)s AND at >= %(start)s AND at < %(end)s
           AND (%(queue)s::text IS NULL OR queue = %(queue)s::text) AND (%(func)s::text IS NULL OR func = %(func)s::text)
        OFFSET 0) m
 GROUP BY 1, 2
 ORDER BY 1, 2
 LIMIT %(limit)s
