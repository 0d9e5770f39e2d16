-- Returns the weekly partitions of pgq_task: name, end of its range of ids, size in bytes.
SELECT c.oid::regclass::text, b.upper::uuid, pg_total_relation_size(c.oid)
  FROM pg_inherits i
  JOIN pg_class c ON c.oid = i.inhrelid
 CROSS JOIN LATERAL substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([0-9a-f-]{36})''\)') AS b (upper)
 WHERE i.inhparent = 'pgq_task'::regclass AND b.upper IS NOT NULL
 ORDER BY b.upper
