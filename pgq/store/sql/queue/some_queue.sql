-- Returns any queue: the first claim of a worker begins there.
SELECT queue FROM pgq_lane ORDER BY random() LIMIT 1
