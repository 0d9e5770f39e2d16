-- Takes a unique key for a time, unless another task has taken it and its time is not over. Returns a row if it was taken.
-- If another open transaction has written that key, it waits for the end of that one.
INSERT INTO pgq_unique AS u (key, task, until)
VALUES (%(key)s, %(task)s, clock_timestamp() + %(seconds)s * interval '1 second')
    ON CONFLICT (key) DO UPDATE
       SET task = excluded.task, until = excluded.until
     WHERE u.until <= clock_timestamp()
RETURNING key
