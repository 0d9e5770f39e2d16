-- Puts tasks that the caller has locked behind all others of a queue, in the order that they had, each with its new signature;
-- makes the lanes there, and wakes who sleeps. Returns the id of each.
WITH given AS MATERIALIZED (
     SELECT * FROM unnest(%(ids)s::uuid[], %(signatures)s::bytea[]) AS g (id, signature)
), ordered AS MATERIALIZED (
     SELECT o.id, o.signature, nextval('pgq_position') AS position
       FROM (SELECT g.* FROM given g JOIN pgq_queue q USING (id) ORDER BY q.priority DESC, q.position) o
), moved AS (
     UPDATE pgq_queue q
        SET queue = %(queue)s, signature = o.signature, position = o.position
       FROM ordered o
      WHERE q.id = o.id
  RETURNING q.id, q.priority, q.key, q.run_after IS NULL AND q.remaining IS NULL AND q.parked IS NULL AS ready
), plain AS (
     INSERT INTO pgq_lane (queue, priority)
     SELECT %(queue)s, m.priority
       FROM (SELECT DISTINCT priority FROM moved WHERE key IS NULL ORDER BY 1) m
      WHERE NOT EXISTS (SELECT FROM pgq_lane l WHERE l.queue = %(queue)s AND l.priority = m.priority)
        -- Another session that makes the same lane is not waited for: see pgq_queue_inserted.
        AND pg_try_advisory_xact_lock(hashtextextended('pgq_lane ' || m.priority || ' ' || %(queue)s, 0))
         ON CONFLICT DO NOTHING
), keyed AS MATERIALIZED (
     SELECT pgq_make_keyed(array_agg(k.queue), array_agg(k.key), array_agg(k.priority))
       FROM (SELECT DISTINCT %(queue)s::text AS queue, key, priority FROM moved WHERE ready AND key IS NOT NULL) k
     HAVING count(*) > 0
), woken AS MATERIALIZED (
     SELECT pgq_wake() FROM moved WHERE ready LIMIT 1
)
SELECT id
  FROM moved
 -- They are called only where something reads them.
 WHERE (SELECT count(*) FROM keyed) >= 0 AND (SELECT count(*) FROM woken) >= 0
