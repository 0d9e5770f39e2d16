-- Moves each lane's watermark up to just below its first ready row, but never past `safe`: the last position of which
-- upkeep knows that no unfinished transaction holds it or one below. The search begins at the old watermark, so it passes
-- each dead entry of the index once and no more.
-- It touches only lanes that lock_lanes.sql has locked: if it waited for another lane here, whose holder may wait for
-- one of these, that would be a deadlock.
-- (MATERIALIZED: else the search would be pulled into both places that use its outcome, and be made twice.)
WITH found AS MATERIALIZED (
    SELECT lane.queue, lane.priority, least(%(safe)s::bigint, coalesce((
               SELECT q.position - 1
                 FROM pgq_queue q
                WHERE q.queue = lane.queue AND q.priority = lane.priority AND q.position > lane.low
                  AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                ORDER BY q.position
                LIMIT 1), %(safe)s::bigint)) AS low
      FROM unnest(%(queues)s::text[], %(priorities)s::smallint[]) AS locked (queue, priority)
      JOIN pgq_lane lane ON lane.queue = locked.queue AND lane.priority = locked.priority
     WHERE lane.low < %(safe)s
)
UPDATE pgq_lane l
   SET low = found.low
  FROM found
 WHERE l.queue = found.queue AND l.priority = found.priority AND l.low < found.low
