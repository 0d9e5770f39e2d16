-- Makes ready again what is held under ids whose workers ran none of it, or were killed on purpose: a claim whose commit
-- got no reply, or tasks that a pool which has to end at once takes along. They are charged nothing and keep
-- their place. Returns the ids; 1000 at most. A row that is locked is left out, as in release_worker.sql.
WITH lost AS MATERIALIZED (
    SELECT id, queue, key, priority, position, false AS to_end
      FROM pgq_queue
     -- `since` may be of before the clock was set back.
     WHERE lock >= least(%(since)s, statement_timestamp() - interval '30 seconds') AND worker = ANY (%(workers)s::uuid[])
     ORDER BY lock
     LIMIT 1000
       FOR UPDATE SKIP LOCKED
), {kept_places}
UPDATE pgq_queue q
   SET lock = NULL, worker = NULL, receipt = NULL, strand = NULL, position = coalesce(lost.place, nextval('pgq_position')),
       attempts = q.attempts - 1
  FROM placed lost
 WHERE q.id = lost.id
RETURNING q.id, CASE WHEN lost.laneless THEN pgq_keyed_ready(q.queue, q.key, q.priority) END
