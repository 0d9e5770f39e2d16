-- Counts the results whose option `keep` is over.
SELECT count(*)
  FROM pgq_task t
 WHERE t.options ? 'keep' AND pgq_kept_until(t.options, t.stopped) <= extract(epoch FROM %(now)s::timestamptz)::float8
