-- Stops claims from a queue.
SELECT pgq_pause(%(queue)s)
