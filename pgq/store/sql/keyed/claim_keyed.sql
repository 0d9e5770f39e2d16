-- 2 of 2: claims from the lanes whose limits choose.sql has locked. A statement of its own, since its snapshot must be
-- younger than the locks: so what another session has claimed under the same lock is seen and counted.
-- A place is taken only here, under the lock, which is held until the commit and released after that is visible; it is freed
-- only by a commit that deletes the row or sets lock = NULL. So what is counted is never less than what is taken.
-- A limit that was set since the lanes were chosen has no lock here: its lanes are left out.
--
-- Of a strict key one task at a time is claimed, and none while one of them waits for another attempt, or is parked.
--
-- A strand is a serial line: the worker runs its rows one after the other. It has {places} places, so it draws so many
-- strands ({strands}), and a lane uses no more of them than its limits have room for. A strand counts once for its key and
-- once for its queue, whatever is on it.
WITH bound AS MATERIALIZED (
    SELECT low.last_value AS low, {strands} AS strands, extract(epoch FROM clock_timestamp())::float8 AS now
      FROM pgq_strand_low low
), chosen AS MATERIALIZED (
    SELECT k.queue, k.key, k.low, k.n, k.queue_locked, k.key_locked, row_number() OVER (PARTITION BY k.key ORDER BY k.n) AS turn
      FROM unnest(%(queues)s::text[], %(keys)s::text[], %(lows)s::bigint[], %(queue_limited)s::boolean[],
                  %(key_limited)s::boolean[]) WITH ORDINALITY AS k (queue, key, low, queue_locked, key_locked, n)
), total AS MATERIALIZED (
    -- What the limits of the queues leave.
    SELECT c.queue, m.concurrency - CASE WHEN m.concurrency IS NOT NULL THEN (
               WITH RECURSIVE s (strand, n) AS (
                   (SELECT q.strand, 1 FROM pgq_queue q WHERE q.queue = c.queue AND q.strand IS NOT NULL AND q.strand > bound.low
                     ORDER BY q.strand LIMIT 1)
                    UNION ALL
                   SELECT (SELECT q.strand FROM pgq_queue q
                            WHERE q.queue = c.queue AND q.strand IS NOT NULL AND q.strand > s.strand
                            ORDER BY q.strand LIMIT 1), s.n + 1
                     FROM s WHERE s.strand IS NOT NULL AND s.n < m.concurrency)
               SELECT count(strand) FROM s) END AS room,
           {queue_budget} AS budget
      FROM (SELECT DISTINCT queue FROM chosen WHERE queue_locked) c
      JOIN pgq_limit m ON m.scope = 'queue' AND m.name = c.queue
     CROSS JOIN bound
), counted AS MATERIALIZED (
    -- A strict key has no use for the watermark: a task that was given back may lie below it, since choose.sql has read it, or
    -- until the next sweep if the lane was locked then (see kept_places.sql), and those behind it would go before it.
    SELECT k.queue, k.key, CASE WHEN l.strict THEN 0 ELSE k.low END AS low,
           k.n, total.room AS queue_room, total.budget AS queue_budget,
           CASE WHEN l.strict THEN least(coalesce(l.concurrency, 1), 1) ELSE l.concurrency END
           - CASE WHEN l.concurrency IS NOT NULL OR l.strict THEN (
               WITH RECURSIVE s (strand, n) AS (
                   (SELECT q.strand, 1 FROM pgq_queue q WHERE q.key = k.key AND q.strand IS NOT NULL AND q.strand > bound.low
                     ORDER BY q.strand LIMIT 1)
                    UNION ALL
                   SELECT (SELECT q.strand FROM pgq_queue q
                            WHERE q.key = k.key AND q.strand IS NOT NULL AND q.strand > s.strand
                            ORDER BY q.strand LIMIT 1), s.n + 1
                     FROM s WHERE s.strand IS NOT NULL AND s.n < coalesce(l.concurrency, 1))
               SELECT count(strand) FROM s) END AS key_room,
           least({key_budget}, CASE WHEN l.strict THEN 1 END) AS budget
      FROM chosen k
     CROSS JOIN bound
      LEFT JOIN pgq_limit l ON l.scope = 'key' AND l.name = split_part(k.key, ':', 1)
      LEFT JOIN pgq_limit m ON m.scope = 'queue' AND m.name = k.queue
      LEFT JOIN total ON total.queue = k.queue
     -- A key may have lanes in several queues. Each would be given all the room, so of a limited key the first one has its turn.
     WHERE (l.name IS NULL OR (k.key_locked AND k.turn = 1)) AND (m.name IS NULL OR k.queue_locked)
       AND NOT (coalesce(l.strict, false) AND EXISTS (
           SELECT FROM pgq_queue q
            WHERE q.key = k.key AND q.attempts > 0 AND (q.run_after IS NOT NULL OR q.parked IS NOT NULL)))
), lane AS MATERIALIZED (
    -- `span`: how many strands the queue leaves; `places`: how many of those this lane may use. NULL: no limit counts.
    -- `most`: how many tasks its rate, and its part of the queue's, let start. NULL: as many as there are.
    SELECT c.*, least({places}, c.queue_room) AS span,
           least(c.budget, c.queue_budget / count(*) OVER of_queue
                           + (row_number() OVER (of_queue ORDER BY c.n) <= mod(c.queue_budget, count(*) OVER of_queue))::integer)
           AS most,
           CASE WHEN c.queue_room IS NOT NULL OR c.key_room IS NOT NULL THEN least({places}, c.queue_room, c.key_room) END
           AS places
      FROM counted c
    WINDOW of_queue AS (PARTITION BY c.queue)
), picked AS MATERIALIZED (
    SELECT found.ctid, found.strand
      FROM (SELECT ready.ctid, ready.position,
                   CASE WHEN lane.places IS NOT NULL
                        THEN bound.strands[1 + mod(lane.n + mod(ready.turn - 1, lane.places), lane.span)] END AS strand
              FROM lane
             CROSS JOIN bound
             CROSS JOIN LATERAL (
                   SELECT both_kinds.ctid, both_kinds.position, row_number() OVER () AS turn
                     FROM (SELECT * FROM (
                               SELECT q.ctid, q.position
                                 FROM pgq_queue q
                                WHERE lane.key <> '' AND q.queue = lane.queue AND q.key = lane.key
                                  AND q.priority = %(priority)s AND q.position > lane.low
                                  AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
                                  AND q.key IS NOT NULL
                                ORDER BY q.queue, q.key, q.priority, q.position
                                LIMIT {most}
                                  FOR UPDATE SKIP LOCKED) keyed
                            UNION ALL
                           SELECT * FROM (
                               SELECT q.ctid, q.position
                                 FROM pgq_queue q
                                WHERE lane.key = '' AND q.queue = lane.queue
                                  AND q.priority = %(priority)s AND q.position > lane.low
                                  AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
                                  AND q.key IS NULL
                                ORDER BY q.queue, q.priority, q.position
                                LIMIT {most}
                                  FOR UPDATE SKIP LOCKED) plain) both_kinds) ready
             WHERE coalesce(lane.places, 1) > 0
             LIMIT {limit}) found
     ORDER BY found.position
)
UPDATE pgq_queue q
   SET lock = clock_timestamp(), worker = %(worker)s, receipt = %(receipt)s, attempts = least(q.attempts + 1, 32767),
       strand = picked.strand, unique_key = CASE WHEN q.unique_until = 'end' THEN q.unique_key END
  FROM picked
 WHERE q.ctid = picked.ctid
RETURNING q.id, q.priority, q.position, q.queue, q.func, q.args::text, q.kwargs::text, q.options::text,
          q.name, q."group", q.hook, q.timeout, q.attempts, q.crashes, q.max_attempts, q.schedule,
          q.enqueued_at, q.signature, q.cancelled, (q.history -> -1)::text AS last_error, q.ctid,
          CASE WHEN q.attempts > 1 AND q.options ? 'django' THEN nullif(q.history, '[]')::text END AS history,
          q.key, q.strand, q.expires_at <= clock_timestamp() AND q.attempts = 1 AS expired,
          date_part('epoch', clock_timestamp() - coalesce(q.ready_at, q.enqueued_at)) AS waited
