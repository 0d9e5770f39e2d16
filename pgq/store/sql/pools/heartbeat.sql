-- Writes that a pool is alive and what it does. PostgreSQL compares the pool's clock with its own when this arrives.
INSERT INTO pgq_worker (id, name, host, pid, queues, exclude_queues, status, version, workers, retry, clock_skew, stalled_since)
VALUES (%(id)s, %(name)s, %(host)s, %(pid)s, %(queues)s, %(excluded)s, %(status)s, %(version)s, %(workers)s, %(retry)s,
        %(clock)s - extract(epoch FROM statement_timestamp()), clock_timestamp() - %(stalled)s * interval '1 second')
ON CONFLICT (id) DO UPDATE
   SET (heartbeat, queues, exclude_queues, status, workers, clock_skew, stalled_since)
     = (clock_timestamp(), excluded.queues, excluded.exclude_queues, excluded.status, excluded.workers, excluded.clock_skew, excluded.stalled_since)
