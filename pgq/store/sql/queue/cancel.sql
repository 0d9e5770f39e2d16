-- Cancels a task, queued or running; returns which it was.
SELECT pgq_cancel(%(id)s)
