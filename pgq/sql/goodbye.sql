-- A pool has stopped. Those that could not say so are removed when their heartbeat is old.
DELETE FROM pgq_worker WHERE id = %(id)s
