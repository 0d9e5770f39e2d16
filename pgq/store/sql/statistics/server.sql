-- Returns what of the server is worth knowing beside a queue.
SELECT current_setting('server_version') AS version, current_database()::text AS database,
       pg_database_size(current_database()) AS size, current_setting('max_connections')::integer AS max_connections,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       (SELECT count(*) FROM pg_stat_activity WHERE state IN ('idle in transaction', 'idle in transaction (aborted)')) AS idle_in_transaction,
       pg_is_in_recovery() AS standby, current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('fsync') AS fsync, current_setting('autovacuum') AS autovacuum
