-- Counts the lanes: the queues and priorities that are, or were, in use.
SELECT count(*) FROM pgq_lane
