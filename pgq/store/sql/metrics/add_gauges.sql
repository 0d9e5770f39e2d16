-- Notes how many tasks each queue has at the moment. What another process has noted of that time stays.
INSERT INTO pgq_gauge (span, at, queue, ready, running, waiting, parked, oldest_ready, workers, busy, paused, exact)
SELECT s.span, to_timestamp(floor(extract(epoch FROM %(at)s::timestamptz) / (60 * s.span)) * 60 * s.span),
       r.queue, r.ready, r.running, r.waiting, r.parked, r.oldest_ready, r.workers, r.busy, r.paused, r.exact
  FROM unnest('{1,10,60,1440}'::smallint[]) s (span),
       jsonb_to_recordset(%(rows)s::jsonb) r (queue text, ready bigint, running bigint, waiting bigint, parked bigint,
           oldest_ready float8, workers integer, busy integer, paused boolean, exact boolean)
ON CONFLICT DO NOTHING
