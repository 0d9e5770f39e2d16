-- Takes what workers have counted and is not added up, oldest first, and marks it as added up: the caller adds it in
-- this transaction, so each is added once. Returns the time of each, to the minute, and what it holds.
UPDATE pgq_metric_raw m
   SET folded = clock_timestamp()
  FROM (SELECT worker, seq FROM pgq_metric_raw
         WHERE folded IS NULL
         ORDER BY at
         LIMIT %(limit)s
           FOR UPDATE SKIP LOCKED) taken
 WHERE m.worker = taken.worker AND m.seq = taken.seq
RETURNING date_trunc('minute', m.at) AS at, m.body::text
