-- Returns {most} limits at most, by scope and name, each with how many strands run under it and how many tasks are ready, both
-- counted up to {bound}; of keys, in 10,000 lanes in use at most.
-- The keys of a limit are its name, and what lies between "name:" and "name;", the next text by bytes.
WITH listed AS MATERIALIZED (
    SELECT * FROM pgq_limit
     WHERE (%(scope)s::text IS NULL OR scope = %(scope)s) AND (%(name)s::text IS NULL OR name = %(name)s)
     ORDER BY scope, name LIMIT {most}
), lane AS MATERIALIZED (
    SELECT queue, key, priority, low, split_part(key, ':', 1) AS name
      FROM pgq_keyed WHERE idle_since IS NULL LIMIT 10000
)
SELECT l.scope, l.name, l.concurrency, l.rate, l.period, l.smooth, l.strict, l.pinned, l.updated_at,
       CASE l.scope WHEN 'queue' THEN (
           SELECT count(DISTINCT r.strand) FROM (SELECT q.strand FROM pgq_queue q
                                                  WHERE q.queue = l.name AND q.strand IS NOT NULL LIMIT {bound}) r)
       ELSE (
           SELECT count(DISTINCT r.strand) FROM (SELECT q.strand FROM pgq_queue q
                                                  WHERE q.key = l.name AND q.strand IS NOT NULL
                                                  UNION ALL
                                                 SELECT q.strand FROM pgq_queue q
                                                  WHERE q.key > l.name || ':' AND q.key < l.name || ';' AND q.strand IS NOT NULL
                                                  LIMIT {bound}) r)
       END AS running,
       (SELECT count(*)
          FROM ((SELECT FROM lane
                  CROSS JOIN LATERAL (
                        SELECT FROM pgq_queue q
                         WHERE q.queue = lane.queue AND q.key = lane.key AND q.priority = lane.priority AND q.position > lane.low
                           AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
                           AND q.key IS NOT NULL
                         LIMIT {bound}) ready
                  WHERE CASE l.scope WHEN 'queue' THEN lane.queue = l.name ELSE lane.name = l.name END
                  LIMIT {bound})
                 UNION ALL
                (SELECT FROM pgq_lane lane
                  CROSS JOIN LATERAL (
                        SELECT FROM pgq_queue q
                         WHERE q.queue = lane.queue AND q.priority = lane.priority AND q.position > lane.low
                           AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL
                           AND q.key IS NULL
                         LIMIT {bound}) ready
                  WHERE l.scope = 'queue' AND lane.queue = l.name
                  LIMIT {bound})
                 LIMIT {bound}) ready) AS ready
  FROM listed l
 ORDER BY l.scope, l.name
