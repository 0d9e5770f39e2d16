-- Claims up to {limit} ready tasks under one new receipt.
-- The limit stands in the text: as a parameter, a generic plan expects a tenth of the table and sorts it all.
-- lanes is MATERIALIZED so that lanes are tried in this order and only as far as the limit needs: the plan
-- locks just the rows it returns. Equal priorities are rotated by `turn`, so that no queue starves. Both are one number:
-- to sort a thousand lanes by two columns takes three times as long.
-- Picked by ctid: the rows are locked, so they stay where they were found, and by id each would be searched for again.
-- (One that changed after our snapshot is locked and not claimed: the next claim finds it.)
-- The predicate is that of the index pgq_queue_ready.
WITH lanes AS MATERIALIZED (
    SELECT l.queue, l.priority, l.low
      FROM pgq_lane l
     WHERE (%(queues)s::text[] IS NULL OR l.queue = ANY (%(queues)s::text[]))
       AND l.queue NOT IN (SELECT p.queue FROM pgq_lane p WHERE p.paused)
     ORDER BY l.priority * -(1::bigint << 40) + (hashtextextended(l.queue, %(turn)s::bigint) & (1::bigint << 40) - 1)
), picked AS MATERIALIZED (
    SELECT ready.ctid
      FROM lanes
     CROSS JOIN LATERAL (
           SELECT q.ctid
             FROM pgq_queue q
            WHERE q.queue = lanes.queue AND q.priority = lanes.priority AND q.position > lanes.low
              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
            ORDER BY q.position
            LIMIT {limit}
              FOR UPDATE SKIP LOCKED) ready
     LIMIT {limit}
)
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = least(q.attempts + 1, 32767)
  FROM picked
 WHERE q.ctid = picked.ctid
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text
