-- count_partition
SELECT count(*) FROM {partition}
