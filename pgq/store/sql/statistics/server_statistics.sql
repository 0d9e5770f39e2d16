-- Returns for how long the oldest transaction with a snapshot has been open, in any session of this database but this one,
-- and how full the queue of notifications is.
SELECT (SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::float8
          FROM pg_stat_activity
         WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()) AS horizon_age,
       pg_notification_queue_usage() AS notifications
