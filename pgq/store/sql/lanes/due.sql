-- Makes waiting tasks ready whose time has come, soonest first, and wakes sleepers. Returns how many.
WITH due AS MATERIALIZED (
    SELECT id
      FROM pgq_queue
     WHERE run_after <= statement_timestamp()
     ORDER BY run_after
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), ready AS (
    UPDATE pgq_queue q
       SET run_after = NULL, position = nextval('pgq_position')
      FROM due
     WHERE q.id = due.id
    RETURNING CASE WHEN q.key IS NOT NULL THEN pgq_keyed_ready(q.queue, q.key, q.priority) END
)
SELECT count(*) FROM ready
