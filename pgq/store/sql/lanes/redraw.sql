-- Draws new positions for up to `limit` ready rows that lie beyond the last position drawn, where claims do not read: they
-- were inserted by hand, or the sequence has begun anew, as it does on a logical replica.
-- (No row that is visible has drawn a position after this read the last one.)
WITH drawn AS MATERIALIZED (
    SELECT coalesce(pg_sequence_last_value('pgq_position'::regclass), 0) AS last
), beyond AS MATERIALIZED (
    SELECT q.id
      FROM pgq_lane lane
     CROSS JOIN LATERAL (
           SELECT id
             FROM pgq_queue
            WHERE queue = lane.queue AND priority = lane.priority AND position > (SELECT last FROM drawn)
              AND lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL
            ORDER BY position
            LIMIT %(limit)s
              FOR UPDATE SKIP LOCKED) q
     LIMIT %(limit)s
)
UPDATE pgq_queue q
   SET position = nextval('pgq_position')
  FROM beyond
 WHERE q.id = beyond.id
