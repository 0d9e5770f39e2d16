-- Claims up to {limit} ready tasks under one new receipt.
-- The limit stands in the text: as a parameter, a generic plan expects a tenth of the table and sorts it all.
-- Turn by turn, each looked for only when the ones before it did not fill the limit: the plan locks just the rows it
-- returns, and a claim costs no more where there are a thousand lanes.
-- Priority by priority; within one, round the ring of its queues, from behind the queue `after`, so that none starves.
-- A turn is of some lanes that follow each other and whose watermarks lie within 16384 positions: one scan of sixty lanes
-- costs half of what sixty scans do, and what it reads in vain, between the lowest watermark and a lane's own, is little.
-- (Of mixed lanes those that had their turn are one window of 8192 ahead of the others, so that it has to be two.)
-- Twice round: first each lane gives what lies in the same 8192 positions as the first task of its turn, or its watermark,
-- then the rest. So the claims of a while stay among neighbouring rows, which caches hold, also where the next task of a
-- queue lies a thousand rows on. (Laps 0 and 1: behind `after`, and up to it; 2 and 3: the same again, for the rest. The
-- turns must be the same as well, or rows between where the one ends and the other begins would be left out.)
-- (`size`: so many lanes are read at most, the next time twice as many. `more`: laps 2 and 3 may find something.)
-- A lane whose watermark has reached the last position drawn is empty: redraw.sql sees to it that no row lies beyond.
-- Updated in the order of their positions, which is about that of the table and of its primary key: each page is met once
-- and is still in the cache, also where the tasks of many queues are mixed. Priority by priority they are run later on.
-- Picked by ctid: the rows are locked, so they stay where they were found, and by id each would be searched for again.
-- (One that changed after our snapshot is locked and not claimed: the next claim finds it.)
-- The predicate is that of the index pgq_queue_ready, which also gives the order; the ring's index is pgq_lane_ring.
WITH RECURSIVE turn (priority, lap, behind, size, more, last, queues, low, high) AS (
    SELECT (SELECT max(l.priority) FROM pgq_lane l), 0, %(after)s::text COLLATE "C", {limit} / 8 + 4, false,
           pg_sequence_last_value('pgq_position'::regclass), NULL::text[] COLLATE "C", NULL::bigint, NULL::bigint
     UNION ALL
    SELECT CASE WHEN next.lap < 4 THEN turn.priority
                ELSE (SELECT max(l.priority) FROM pgq_lane l WHERE l.priority < turn.priority) END,
           mod(next.lap, 4),
           CASE WHEN lanes.last IS NOT NULL THEN lanes.last WHEN next.lap IN (1, 3) THEN '' ELSE %(after)s::text END,
           CASE WHEN lanes.last IS NOT NULL THEN least(2 * turn.size, 64) WHEN next.lap IN (1, 3) THEN turn.size
                ELSE {limit} / 8 + 4 END,
           next.lap < 4 AND (turn.more OR coalesce(lanes.high < turn.last, false)),
           turn.last, lanes.queues, lanes.low, lanes.high
      FROM turn
     CROSS JOIN LATERAL (
           SELECT array_agg(near.queue) AS queues, min(near.low) AS low, max(near.low) | 8191 AS high,
                  max(near.queue) AS last
             FROM (SELECT l.queue, l.low, max(l.low) OVER ring - min(l.low) OVER ring AS apart
                     FROM (SELECT l.queue, l.low
                             FROM pgq_lane l
                            WHERE l.priority = turn.priority AND l.low < turn.last
                              AND l.queue > turn.behind AND (turn.lap IN (0, 2) OR l.queue <= %(after)s::text)
                              AND (%(queues)s::text[] IS NULL OR l.queue = ANY (%(queues)s::text[]))
                              AND l.queue NOT IN (SELECT p.queue FROM pgq_lane p WHERE p.paused)
                            ORDER BY l.queue
                            LIMIT turn.size) l
                   WINDOW ring AS (ORDER BY l.queue ROWS UNBOUNDED PRECEDING)) near
            WHERE near.apart < 16384) lanes
     CROSS JOIN LATERAL (
           SELECT CASE WHEN lanes.last IS NOT NULL THEN turn.lap
                       WHEN turn.lap = 1 AND NOT turn.more THEN 4
                       ELSE turn.lap + 1 END AS lap) next
     WHERE turn.priority IS NOT NULL
), picked AS MATERIALIZED (
    SELECT found.ctid
      FROM (SELECT ready.ctid, ready.position
              FROM turn
             CROSS JOIN LATERAL (
                   SELECT greatest(q.position | 8191, turn.high) AS high
                     FROM pgq_queue q
                    WHERE q.queue = ANY (turn.queues) AND q.priority = turn.priority AND q.position > turn.low
                      AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
                      AND (turn.lap < 2 OR turn.high < turn.last)
                    ORDER BY q.queue, q.position
                    LIMIT 1) first
             CROSS JOIN LATERAL (
                   SELECT q.ctid, q.position
                     FROM pgq_queue q
                    WHERE q.queue = ANY (turn.queues) AND q.priority = turn.priority
                      AND q.position > CASE WHEN turn.lap < 2 THEN turn.low ELSE first.high END
                      AND q.position <= CASE WHEN turn.lap < 2 THEN first.high ELSE 9223372036854775807 END
                      AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
                    ORDER BY q.queue, q.position
                    LIMIT {limit}
                      FOR UPDATE SKIP LOCKED) ready
             WHERE turn.queues IS NOT NULL
             LIMIT {limit}) found
     ORDER BY found.position
)
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = least(q.attempts + 1, 32767)
  FROM picked
 WHERE q.ctid = picked.ctid
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text, q.ctid
