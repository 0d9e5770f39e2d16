-- Drops a table that was a partition of pgq_task.
DROP TABLE {table}
