-- Returns what was settled, added up by {key} and by times of so many seconds (0: all of it together).
SELECT CASE WHEN %(step)s > 0 THEN to_timestamp(floor(extract(epoch FROM at) / nullif(%(step)s, 0)) * %(step)s)
            ELSE %(start)s END AS at,
       {key} AS key,
       sum(succeeded)::bigint, sum(failed)::bigint, sum(retried)::bigint, sum(cancelled)::bigint, sum(timed_out)::bigint,
       sum(crashed)::bigint, sum(parked)::bigint, sum(discarded)::bigint,
       sum(run_us_sum)::float8 / 1000000, max(run_us_max)::float8 / 1000000,
       sum(wait_us_sum)::float8 / 1000000, max(wait_us_max)::float8 / 1000000
  FROM pgq_metric
 WHERE span = %(span)s AND at >= %(start)s AND at < %(end)s
   AND (%(queue)s::text IS NULL OR queue = %(queue)s::text) AND (%(func)s::text IS NULL OR func = %(func)s::text)
 GROUP BY 1, 2
 ORDER BY 1, 2
 LIMIT %(limit)s
