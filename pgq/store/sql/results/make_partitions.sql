-- Makes the partitions of the coming weeks.
SELECT pgq_make_partitions()
