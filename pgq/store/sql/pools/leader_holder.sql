-- Returns which other sessions hold the leader's key (see lead.sql), which any session can take: pid (NULL: a prepared
-- transaction), user, application, and for how many seconds its transaction has lasted (NULL: it is in none, or this role
-- may not see that).
WITH leader AS (
    SELECT hashtextextended('pgq tick ' || 'pgq_schedule'::regclass::oid, 0) AS key
)
SELECT l.pid, a.usename::text AS "user", a.application_name AS application,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
  FROM leader
  JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
                 AND l.classid = (leader.key >> 32 & 4294967295)::oid AND l.objid = (leader.key & 4294967295)::oid
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND l.pid IS DISTINCT FROM pg_backend_pid()
