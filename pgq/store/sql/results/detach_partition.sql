-- Makes a partition a table by itself: PostgreSQL drops no partition of a table that a foreign key refers to.
-- It refuses to detach a partition of which another table refers to a row.
ALTER TABLE pgq_task DETACH PARTITION {partition}
