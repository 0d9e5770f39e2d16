-- Returns of each table of pgq, its partitions added up: how many those are, its size with indexes and TOAST, its
-- living and dead rows as PostgreSQL estimates them, its inserted rows, and when it was last vacuumed.
SELECT coalesce(p.relname, c.relname)::text AS table, count(*) AS parts,
       sum(pg_total_relation_size(c.oid))::bigint AS bytes,
       coalesce(sum(s.n_live_tup), 0)::bigint AS living_rows, coalesce(sum(s.n_dead_tup), 0)::bigint AS dead_rows,
       coalesce(sum(s.n_tup_ins), 0)::bigint AS inserted, max(greatest(s.last_vacuum, s.last_autovacuum)) AS vacuumed
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
  LEFT JOIN pg_class p ON p.oid = i.inhparent
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
 WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgq_queue'::regclass)
   AND starts_with(coalesce(p.relname, c.relname), 'pgq_')
 GROUP BY 1
 ORDER BY 1
