-- Enqueues one task, on the caller's connection and in the caller's transaction.
INSERT INTO pgq_queue (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts,
                       run_after, remaining, schedule, slot, signature)
VALUES (%(id)s, %(func)s, %(args)s, %(kwargs)s, %(options)s, %(queue)s, %(priority)s, %(name)s, %(group)s, %(hook)s,
        %(timeout)s, %(max_attempts)s,
        -- A time that has come is no reason to wait for the tick; only the clock of the database says so.
        CASE WHEN %(run_after)s::timestamptz > clock_timestamp() THEN %(run_after)s::timestamptz END,
        %(remaining)s, %(schedule)s, %(slot)s, %(signature)s)
