-- Claims up to {limit} ready tasks under one new receipt.
-- The limit stands in the text: as a parameter, a generic plan expects a tenth of the table and sorts it all.
-- Lane by lane, each found only when the ones before it did not fill the limit: the plan locks just the rows it returns,
-- and a claim costs no more where there are a thousand lanes. LATERAL keeps it so: no join but a nested loop can do it.
-- Priority by priority; within one, round the ring of its queues' hashes, from behind the queue `after`, so that no queue
-- starves (the index is pgq_lane_ring).
-- Twice round: first each lane gives what lies near its watermark, then the rest. So the claims of a while stay among
-- neighbouring rows, which caches hold, also where the next task of a queue lies a thousand rows further on. Near is
-- what a busy pool claims between two moves of the watermarks, and more. Where they lag, as the task that was claimed
-- last tells (`reached`), it is once round for all: else each claim would look at each lane in vain.
-- A lane whose watermark has reached the last position drawn is empty: redraw.sql sees to it that no row lies beyond.
-- Picked by ctid: the rows are locked, so they stay where they were found, and by id each would be searched for again.
-- (One that changed after our snapshot is locked and not claimed: the next claim finds it.)
-- The predicate is that of the index pgq_queue_ready.
WITH RECURSIVE drawn AS MATERIALIZED (
    SELECT pg_sequence_last_value('pgq_position'::regclass) AS last
), near AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (SELECT FROM pgq_lane l WHERE l.queue = %(after)s AND l.low + 8192 < %(reached)s)
                THEN 1000000000000000000 ELSE 8192 END AS upto
), turn (priority, above, upto) AS (
    SELECT (SELECT max(priority) FROM pgq_lane), 0::bigint, upto::bigint FROM near
     UNION ALL
    SELECT CASE WHEN turn.upto = 8192 THEN priority
                ELSE (SELECT max(l.priority) FROM pgq_lane l WHERE l.priority < turn.priority) END,
           CASE WHEN turn.upto = 8192 THEN 8192 ELSE 0 END,
           CASE WHEN turn.upto = 8192 THEN 1000000000000000000 ELSE near.upto END
      FROM turn, near
     WHERE turn.priority IS NOT NULL
), picked AS MATERIALIZED (
    SELECT ready.ctid
      FROM turn
     CROSS JOIN LATERAL (
           (SELECT l.queue, l.low
              FROM pgq_lane l
             WHERE l.priority = turn.priority AND l.low + turn.above < (SELECT last FROM drawn)
               AND hashtextextended(l.queue, 0) > hashtextextended(%(after)s, 0)
             ORDER BY hashtextextended(l.queue, 0))
           UNION ALL
           (SELECT l.queue, l.low
              FROM pgq_lane l
             WHERE l.priority = turn.priority AND l.low + turn.above < (SELECT last FROM drawn)
               AND hashtextextended(l.queue, 0) <= hashtextextended(%(after)s, 0)
             ORDER BY hashtextextended(l.queue, 0))) lane
     CROSS JOIN LATERAL (
           SELECT q.ctid
             FROM pgq_queue q
            WHERE q.queue = lane.queue AND q.priority = turn.priority
              AND q.position > lane.low + turn.above AND q.position <= lane.low + turn.upto
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
