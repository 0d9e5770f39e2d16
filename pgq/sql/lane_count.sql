-- How many queues and priorities are, or were, in use.
SELECT count(*) FROM pgq_lane
