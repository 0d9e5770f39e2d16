-- Claims up to {limit} ready tasks without a key under one new receipt, and returns their rows. {top} and {bottom} may bound
-- the priorities.
-- Order: priority descending; within a priority the queues in a ring that starts after the queue `after`, so that no queue
-- starves. The ring is gone round twice: first each turn gives what lies in one window of {window} positions, then the rest.
-- So the claims of a while stay among neighbouring rows, which caches hold, also where a queue's next task lies far off.
-- A turn reads some lanes that follow each other in the ring. It is made only if the turns before it did not fill the
-- limit: a claim locks just the rows that it returns, and costs no more where there are a thousand lanes.
--
-- Example: queue a has tasks at the positions 1 and 9000, b one at 2, c two at 3 and 4; all of one priority; after = 'b'.
--     lap 0   one window, the queues behind `after`        c3 c4
--     lap 1   one window, the queues up to `after`         a1 b2
--     lap 2   the rest of the turns of lap 0               nothing
--     lap 3   the rest of the turns of lap 1               a9000
--     lap 4   is lap 0 of the next lower priority
-- A claim of four takes c3 c4 a1 b2. The next one has after = 'a' (see store.behind): b would be first, then c, then a.
--
-- The limit is part of the text: as a parameter, a generic plan expects a tenth of the table and sorts it all.
-- "position | ({window} - 1)" is the last position of a position's window.
-- `behind`: the turn's lanes follow that queue. `size`: it reads so many lanes at most, the next one twice as many.
-- `more`: laps 2 and 3 may find something. `last`: the last position drawn. `low`, `high`: where the turn's window is.
WITH RECURSIVE turn (priority, lap, behind, size, more, last, queues, low, high) AS (
    SELECT (SELECT max(l.priority) FROM pgq_lane l {top}), 0, %(after)s::text COLLATE "C", {limit} / 8 + 4, false,
           pg_sequence_last_value('pgq_position'::regclass), NULL::text[] COLLATE "C", NULL::bigint, NULL::bigint
     UNION ALL
    SELECT CASE WHEN next.lap < 4 THEN turn.priority
                ELSE (SELECT max(l.priority) FROM pgq_lane l WHERE l.priority < turn.priority {bottom}) END,
           CASE WHEN next.lap < 4 THEN next.lap ELSE 0 END,
           CASE WHEN lanes.last IS NOT NULL THEN lanes.last WHEN next.lap IN (1, 3) THEN '' ELSE %(after)s::text END,
           CASE WHEN lanes.last IS NOT NULL THEN least(2 * turn.size, 64) WHEN next.lap IN (1, 3) THEN turn.size
                ELSE {limit} / 8 + 4 END,
           next.lap < 4 AND (turn.more OR coalesce(lanes.high < turn.last, false)),
           turn.last, lanes.queues, lanes.low, lanes.high
      FROM turn
     -- The lanes of a turn have watermarks near each other. One scan of sixty lanes costs half of what sixty scans do, and
     -- what it reads in vain, between the lowest watermark and a lane's own, is little. (Two windows: among mixed lanes
     -- those that had their turn are one window ahead of the others.)
     CROSS JOIN LATERAL (
           SELECT array_agg(near.queue) AS queues, min(near.low) AS low, max(near.low) | ({window} - 1) AS high,
                  max(near.queue) AS last
             FROM (SELECT l.queue, l.low, max(l.low) OVER ring - min(l.low) OVER ring AS apart
                     FROM (SELECT l.queue, l.low
                             FROM pgq_lane l
                            -- A lane whose watermark has reached the last position drawn is empty: redraw.sql sees to it
                            -- that no row lies beyond. The index of the ring is pgq_lane_ring.
                            WHERE l.priority = turn.priority AND l.low < turn.last
                              AND l.queue > turn.behind AND (turn.lap IN (0, 2) OR l.queue <= %(after)s::text)
                              AND (%(queues)s::text[] IS NULL OR l.queue {among} (%(queues)s::text[])) {excluded}
                              -- The rows of a queue that has a limit are claimed by claim_keyed.sql, which counts them.
                              AND l.queue NOT IN (SELECT p.queue FROM pgq_lane p WHERE p.paused UNION ALL
                                                  SELECT m.name FROM pgq_limit m WHERE m.scope = 'queue')
                            ORDER BY l.queue
                            LIMIT turn.size) l
                   WINDOW ring AS (ORDER BY l.queue ROWS UNBOUNDED PRECEDING)) near
            WHERE near.apart < 2 * {window}) lanes
     -- Laps 2 and 3 make the same turns as laps 0 and 1: else rows between the end of one turn and the begin of another
     -- would be left out.
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
                   SELECT greatest(q.position | ({window} - 1), turn.high) AS high
                     FROM pgq_queue q
                    WHERE q.queue = ANY (turn.queues) AND q.priority = turn.priority AND q.position > turn.low
                      AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                      AND (turn.lap < 2 OR turn.high < turn.last)
                    ORDER BY q.queue, q.position
                    LIMIT 1) first
             -- This predicate is that of the index pgq_queue_ready, which also gives the order.
             CROSS JOIN LATERAL (
                   SELECT q.ctid, q.position
                     FROM pgq_queue q
                    WHERE q.queue = ANY (turn.queues) AND q.priority = turn.priority
                      AND q.position > CASE WHEN turn.lap < 2 THEN turn.low ELSE first.high END
                      AND q.position <= CASE WHEN turn.lap < 2 THEN first.high ELSE 9223372036854775807 END
                      AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                    ORDER BY q.queue, q.position
                    LIMIT {limit}
                      FOR UPDATE SKIP LOCKED) ready
             WHERE turn.queues IS NOT NULL
             LIMIT {limit}) found
     -- The rows are updated about in the order of the table and of its primary key: each page is met once and is still in
     -- the cache, also where the tasks of many queues are mixed. The worker runs them priority by priority.
     ORDER BY found.position
)
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = least(q.attempts + 1, 32767),
       unique_key = CASE WHEN q.unique_until = 'end' THEN q.unique_key END
  FROM picked
 -- The rows are locked, so they stay where they were found; by id each would be searched for again. (A row that changed
 -- after the statement's snapshot is locked and not claimed: the next claim finds it.)
 WHERE q.ctid = picked.ctid
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text AS last_error, q.ctid,
          CASE WHEN q.attempts > 1 AND q.options ? 'django' THEN nullif(q.history, '[]')::text END AS history,
          q.key,
          -- These rows have no strand. In its place: 0 if claims have to look for lanes of keys, or for queues with a limit
          -- (see in_use.sql), so that a worker need not ask. It is computed once for all rows.
          CASE WHEN (SELECT EXISTS (SELECT FROM pgq_keyed WHERE idle_since IS NULL)
                         OR EXISTS (SELECT FROM pgq_limit WHERE scope = 'queue')) THEN 0::bigint END AS strand,
          q.expires_at <= clock_timestamp() AND q.attempts = 1 AS expired,
          date_part('epoch', clock_timestamp() - coalesce(q.ready_at, q.enqueued_at)) AS waited
