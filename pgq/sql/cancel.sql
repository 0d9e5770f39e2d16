-- Cancels a task, queued or running; says which it was.
SELECT pgq_cancel(%(id)s)
