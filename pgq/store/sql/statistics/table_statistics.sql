-- Returns size, dead rows and inserted rows of each table of pgq; partitions of pgq_task are added up.
SELECT CASE WHEN c.relispartition THEN 'pgq_task' ELSE c.relname::text END AS table,
       sum(pg_total_relation_size(c.oid))::bigint AS bytes,
       coalesce(sum(s.n_dead_tup), 0)::bigint AS dead_rows,
       coalesce(sum(s.n_tup_ins), 0)::bigint AS inserted
  FROM pg_class c
  LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
 WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'pgq_queue'::regclass)
   AND starts_with(c.relname, 'pgq_')
 GROUP BY 1
 ORDER BY 1
