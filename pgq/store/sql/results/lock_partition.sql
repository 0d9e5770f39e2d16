-- Keeps every session from writing to a partition until the transaction ends.
LOCK TABLE {partition} IN SHARE MODE
