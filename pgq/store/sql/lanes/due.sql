-- Makes waiting tasks ready whose time has come, soonest first. Returns how many. They count as ready since that time.
WITH due AS MATERIALIZED (
    SELECT id
      FROM pgq_queue
     WHERE run_after <= statement_timestamp()
     ORDER BY run_after
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), ready AS (
    UPDATE pgq_queue q
       SET run_after = NULL, ready_at = q.run_after,
           -- Of a strict key the task that is tried again comes before those that it has held back.
           position = CASE WHEN q.key IS NOT NULL AND q.attempts > 0 AND EXISTS (
                                    SELECT FROM pgq_limit l
                                     WHERE l.scope = 'key' AND l.name = split_part(q.key, ':', 1) AND l.strict)
                           THEN q.position ELSE nextval('pgq_position') END
      FROM due
     WHERE q.id = due.id
    RETURNING CASE WHEN q.key IS NOT NULL THEN pgq_keyed_ready(q.queue, q.key, q.priority, q.position) END
)
SELECT count(*) FROM ready
