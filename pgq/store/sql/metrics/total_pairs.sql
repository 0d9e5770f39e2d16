-- Returns the queues and functions that have counters.
SELECT queue, func FROM pgq_total
