-- Adds what workers have counted to rows of a table, in the order of its key, so that two of these cannot deadlock. The key of
-- pgq_total, whose rows grow for ever, is a part of the key of pgq_metric, whose rows are each about a time.
INSERT INTO {table} AS old (
       {key}, succeeded, failed, retried, cancelled, timed_out, crashed, parked, discarded, run_us_sum, run_us_max,
       run_from, run_hist, wait_us_sum, wait_us_max, wait_from, wait_hist)
SELECT {key}, succeeded, failed, retried, cancelled, timed_out, crashed, parked, discarded, run_us_sum, run_us_max,
       run_from, run_hist, wait_us_sum, wait_us_max, wait_from, wait_hist
  FROM jsonb_to_recordset(%(rows)s::jsonb) r (
       span smallint, at timestamptz, queue text, func text, succeeded bigint, failed bigint, retried bigint,
       cancelled bigint, timed_out bigint, crashed bigint, parked bigint, discarded bigint, run_us_sum bigint,
       run_us_max bigint, run_from smallint, run_hist bigint[], wait_us_sum bigint, wait_us_max bigint, wait_from smallint,
       wait_hist bigint[])
 ORDER BY r.span, r.at, r.queue COLLATE "C", r.func COLLATE "C"
ON CONFLICT ({key}) DO UPDATE
   SET succeeded = old.succeeded + excluded.succeeded, failed = old.failed + excluded.failed, retried = old.retried + excluded.retried,
       cancelled = old.cancelled + excluded.cancelled, timed_out = old.timed_out + excluded.timed_out, crashed = old.crashed + excluded.crashed,
       parked = old.parked + excluded.parked, discarded = old.discarded + excluded.discarded, run_us_sum = old.run_us_sum + excluded.run_us_sum,
       wait_us_sum = old.wait_us_sum + excluded.wait_us_sum,
       run_us_max = greatest(old.run_us_max, excluded.run_us_max),
       wait_us_max = greatest(old.wait_us_max, excluded.wait_us_max),
       run_hist = pgq_hist_add(old.run_from, old.run_hist, excluded.run_from, excluded.run_hist),
       wait_hist = pgq_hist_add(old.wait_from, old.wait_hist, excluded.wait_from, excluded.wait_hist),
       run_from = least(old.run_from, excluded.run_from), wait_from = least(old.wait_from, excluded.wait_from){touched}
