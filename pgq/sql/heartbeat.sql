-- Says that a pool is alive and what it does.
INSERT INTO pgq_worker (id, name, host, pid, queues, status, version, workers)
VALUES (%(id)s, %(name)s, %(host)s, %(pid)s, %(queues)s, %(status)s, %(version)s, %(workers)s)
ON CONFLICT (id) DO UPDATE
   SET (heartbeat, queues, status, workers) = (clock_timestamp(), excluded.queues, excluded.status, excluded.workers)
