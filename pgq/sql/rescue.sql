-- Makes lost tasks ready again: those of dead workers, or (workers NULL) those whose lease has run out.
-- `culprits` are the tasks that ran when their worker died; NULL: nobody knows, so each is suspect.
-- A culprit is charged: with a crash, or, if it was killed at its timeout, with a failed attempt.
-- The others only waited in their worker's hands and are charged nothing.
-- They keep their place, as does a culprit the first time: behind a long backlog they would wait for all of it. Another
-- time it goes to the end, so that a lane does not begin with nothing but those that take workers down.
-- A place may be below the lane's watermark by now, so the lane is locked and the watermark lowered, as in release.sql;
-- if somebody has locked the lane, they go to the end rather than wait, since the supervisor renews leases besides.
-- What becomes of a task that has no attempt or no crash left is decided by the worker that claims it next,
-- which settles it as failed without running it.
WITH lost AS MATERIALIZED (
    SELECT id, queue, priority, position, crashes,
           (%(culprits)s::uuid[] IS NULL OR id = ANY (%(culprits)s::uuid[])) AS culprit
      FROM pgq_queue
     -- `since` may be of before the clock was set back; `before` NULL: the age is enough.
     WHERE lock >= least(%(since)s, statement_timestamp() - interval '30 seconds')
       AND lock < least(%(before)s::timestamptz, statement_timestamp() - %(age)s * interval '1 second')
       AND (%(workers)s::uuid[] IS NULL OR worker = ANY (%(workers)s::uuid[]))
     ORDER BY lock
     LIMIT 5000
       FOR UPDATE SKIP LOCKED
), lane AS MATERIALIZED (
    SELECT l.queue, l.priority, l.low
      FROM pgq_lane l
     WHERE (l.queue, l.priority) IN (SELECT queue, priority FROM lost)
     ORDER BY l.queue, l.priority
       FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT lost.id, lost.culprit, lane.queue, lane.priority,
           CASE WHEN lane.low IS NOT NULL AND (NOT lost.culprit OR %(crash)s AND lost.crashes = 0)
                THEN lost.position END AS place
      FROM lost
      LEFT JOIN lane USING (queue, priority)
), lowered AS (
    UPDATE pgq_lane l
       SET low = first.place - 1
      FROM lane
      JOIN (SELECT queue, priority, min(place) AS place FROM judged GROUP BY queue, priority) first
           USING (queue, priority)
     WHERE l.queue = lane.queue AND l.priority = lane.priority AND lane.low >= first.place
)
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, position = coalesce(lost.place, nextval('pgq_position')),
       attempts = q.attempts - (NOT lost.culprit)::integer,
       crashes = q.crashes + (lost.culprit AND %(crash)s)::integer,
       history = CASE WHEN lost.culprit THEN q.history || (%(error)s::jsonb || jsonb_build_object(
                     'attempt', q.attempts, 'worker', q.worker, 'at', clock_timestamp()))
                 ELSE q.history END
  FROM judged lost
 WHERE q.id = lost.id
RETURNING q.id, lost.culprit
