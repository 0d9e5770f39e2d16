-- Claims up to {limit} ready tasks under one new receipt.
-- The limit stands in the text: as a parameter, a generic plan expects a tenth of the table and sorts it all.
-- Lane by lane, each found only when the ones before it did not fill the limit: the plan locks just the rows it returns,
-- and a claim costs no more where there are a thousand lanes. LATERAL keeps it so: no join but a nested loop can do it.
-- Priority by priority; within one, round the ring of its queues' hashes, from behind the queue `after`, so that no queue
-- starves (the index is pgq_lane_ring).
-- Twice round: first each lane gives what lies in the same 8192 positions as its first task, then the rest. So the claims
-- of a while stay among neighbouring rows, which caches hold, also where the next task of a queue lies a thousand rows on.
-- A lane whose watermark has reached the last position drawn is empty: redraw.sql sees to it that no row lies beyond.
-- Picked by ctid: the rows are locked, so they stay where they were found, and by id each would be searched for again.
-- (One that changed after our snapshot is locked and not claimed: the next claim finds it.)
-- The predicate is that of the index pgq_queue_ready.
WITH RECURSIVE drawn AS MATERIALIZED (
    SELECT pg_sequence_last_value('pgq_position'::regclass) AS last
), turn (priority, rest) AS (
    SELECT max(priority), false FROM pgq_lane
     UNION ALL
    SELECT CASE WHEN rest THEN (SELECT max(l.priority) FROM pgq_lane l WHERE l.priority < turn.priority)
                ELSE priority END, NOT rest
      FROM turn
     WHERE priority IS NOT NULL
), picked AS MATERIALIZED (
    SELECT ready.ctid
      FROM turn
     CROSS JOIN LATERAL (
           (SELECT l.queue, l.low
              FROM pgq_lane l
             WHERE l.priority = turn.priority
               AND CASE WHEN turn.rest THEN l.low | 8191 ELSE l.low END < (SELECT last FROM drawn)
               AND hashtextextended(l.queue, 0) > hashtextextended(%(after)s, 0)
             ORDER BY hashtextextended(l.queue, 0))
           UNION ALL
           (SELECT l.queue, l.low
              FROM pgq_lane l
             WHERE l.priority = turn.priority
               AND CASE WHEN turn.rest THEN l.low | 8191 ELSE l.low END < (SELECT last FROM drawn)
               AND hashtextextended(l.queue, 0) <= hashtextextended(%(after)s, 0)
             ORDER BY hashtextextended(l.queue, 0))) lane
     CROSS JOIN LATERAL (
           SELECT CASE WHEN turn.rest THEN (q.position | 8191) + 1 ELSE q.position END AS low,
                  CASE WHEN turn.rest THEN 9223372036854775807 ELSE q.position | 8191 END AS high
             FROM pgq_queue q
            WHERE q.queue = lane.queue AND q.priority = turn.priority AND q.position > lane.low
              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
            ORDER BY q.position
            LIMIT 1) first
     CROSS JOIN LATERAL (
           SELECT q.ctid
             FROM pgq_queue q
            WHERE q.queue = lane.queue AND q.priority = turn.priority
              AND q.position BETWEEN first.low AND first.high
              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
            ORDER BY q.position
            LIMIT {limit}
              FOR UPDATE SKIP LOCKED) ready
     WHERE (%(queues)s::text[] IS NULL OR lane.queue = ANY (%(queues)s::text[]))
       AND lane.queue NOT IN (SELECT p.queue FROM pgq_lane p WHERE p.paused)
     LIMIT {limit}
)
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = least(q.attempts + 1, 32767)
  FROM picked
 WHERE q.ctid = picked.ctid
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text
