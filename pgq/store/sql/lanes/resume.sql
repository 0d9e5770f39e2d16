-- Allows claims from a queue again.
SELECT pgq_resume(%(queue)s)
