-- lock_partition
-- Keeps everybody from writing to a partition until the transaction ends; gives up rather than have others wait for us.
SET LOCAL lock_timeout = '300ms';
LOCK TABLE {partition} IN SHARE MODE
