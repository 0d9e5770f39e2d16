-- drop_partition
-- Detached first, since PostgreSQL drops no partition of a table that a foreign key refers to; and it detaches none of
-- which a row is referred to.
ALTER TABLE pgq_task DETACH PARTITION {partition};
DROP TABLE {partition}
