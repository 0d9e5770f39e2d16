-- Returns of each table of pgq, the partitions of pgq_task taken together, its size with indexes and TOAST, its living and dead
-- rows as PostgreSQL estimates them, and when it was last vacuumed and analyzed.
SELECT CASE WHEN i.inhparent IS NULL THEN c.relname ELSE 'pgq_task' END AS name, count(*) AS parts,
       sum(pg_total_relation_size(c.oid))::bigint AS size, sum(pg_relation_size(c.oid))::bigint AS heap,
       coalesce(sum(s.n_live_tup), 0)::bigint AS living, coalesce(sum(s.n_dead_tup), 0)::bigint AS dead,
       max(greatest(s.last_vacuum, s.last_autovacuum)) AS vacuumed, max(greatest(s.last_analyze, s.last_autoanalyze)) AS analyzed
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'pgq_task'::regclass
  LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
 WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgq_queue'::regclass)
   AND c.relkind = 'r' AND (c.relname ~ '^pgq_' OR i.inhparent IS NOT NULL)
 GROUP BY 1
 ORDER BY 3 DESC
