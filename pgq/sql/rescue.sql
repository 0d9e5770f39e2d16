-- Makes lost tasks ready again: those of dead workers, or (workers NULL) those whose lease has run out.
-- `culprits` are the tasks that ran when their worker died; NULL: nobody knows, so each is suspect.
-- A culprit is charged: with a crash, or, if it was killed at its timeout, with a failed attempt.
-- The others only waited in their worker's hands and are charged nothing.
-- What becomes of a task that has no attempt or no crash left is decided by the worker that claims it next,
-- which settles it as failed without running it.
WITH lost AS MATERIALIZED (
    SELECT id, (%(culprits)s::uuid[] IS NULL OR id = ANY (%(culprits)s::uuid[])) AS culprit
      FROM pgq_queue
     WHERE lock >= %(since)s AND lock < statement_timestamp() - %(age)s * interval '1 second'
       AND (%(workers)s::uuid[] IS NULL OR worker = ANY (%(workers)s::uuid[]))
     ORDER BY lock
     LIMIT 5000
       FOR UPDATE SKIP LOCKED
)
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, position = nextval('pgq_position'),
       attempts = q.attempts - (NOT lost.culprit)::integer,
       crashes = q.crashes + (lost.culprit AND %(crash)s)::integer,
       history = CASE WHEN lost.culprit THEN q.history || (%(error)s::jsonb || jsonb_build_object(
                     'attempt', q.attempts, 'worker', q.worker, 'at', clock_timestamp()))
                 ELSE q.history END
  FROM lost
 WHERE q.id = lost.id
RETURNING q.id, lost.culprit
