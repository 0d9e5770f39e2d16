-- Counts successes and failures, each up to {limit}. Returns also how many rows of either kind PostgreSQL estimates, from
-- what it noted about each partition and the size that it has grown to since (NULL: it never read it).
SELECT (SELECT count(*) FROM (SELECT FROM pgq_task WHERE success LIMIT {limit}) x),
       (SELECT count(*) FROM (SELECT FROM pgq_task WHERE NOT success ORDER BY id DESC LIMIT {limit}) x),
       (SELECT sum(CASE WHEN c.relpages > 0
                        THEN c.reltuples::float8 / c.relpages
                             * (pg_relation_size(c.oid) / current_setting('block_size')::bigint) END)::bigint
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'pgq_task'::regclass),
       (SELECT sum(greatest(x.reltuples, 0))::bigint
          FROM pg_inherits i
          JOIN pg_class x ON x.oid = i.inhrelid
         WHERE i.inhparent = 'pgq_task_failure'::regclass)
