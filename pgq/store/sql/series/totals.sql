-- Returns the counters that only grow, and their histograms.
SELECT queue, func, succeeded, failed, retried, cancelled, timed_out, crashed, parked, discarded,
       run_us_sum::float8 / 1000000, run_us_max::float8 / 1000000, wait_us_sum::float8 / 1000000,
       wait_us_max::float8 / 1000000, run_from, run_hist, wait_from, wait_hist, since, updated_at
  FROM pgq_total
 ORDER BY queue, func
 LIMIT %(limit)s
