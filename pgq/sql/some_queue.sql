-- Any queue: where the first claim of a worker begins.
SELECT queue FROM pgq_lane ORDER BY random() LIMIT 1
