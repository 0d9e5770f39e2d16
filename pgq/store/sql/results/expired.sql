-- Returns the weekly partitions of pgq_task that ended before a time, oldest first: name, end of its range of ids, whether
-- this role may drop it, whether a task of that week still lives, and how many rows were ever written there. It reads the
-- catalog and one entry of an index for each.
SELECT c.oid::regclass::text AS name, b.bounds[2]::uuid AS upper, pg_has_role(c.relowner, 'USAGE') AS droppable,
       EXISTS (SELECT FROM pgq_queue q WHERE q.id >= b.bounds[1]::uuid AND q.id < b.bounds[2]::uuid) AS live,
       pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) AS written
  FROM pg_inherits i
  JOIN pg_class c ON c.oid = i.inhrelid
 CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid),
                                 'FROM \(''([0-9a-f-]{36})''\) TO \(''([0-9a-f-]{36})''\)') AS b (bounds)
 -- Before 1970 there are no ids, and the floor of such a time would be above all of them.
 WHERE i.inhparent = 'pgq_task'::regclass
   AND b.bounds[2]::uuid <= pgq_uuid7_floor(greatest(%(before)s::timestamptz, to_timestamp(0)))
 ORDER BY upper
