-- Raises the flag that a process waits for results, for so many milliseconds: settle.sql notifies only then.
SELECT setval('pgq_wait_until', greatest(last_value, (extract(epoch FROM clock_timestamp()) * 1000 + %(milliseconds)s)::bigint))
  FROM pgq_wait_until
