-- Returns the function of a live task.
SELECT func FROM pgq_queue WHERE id = %(id)s
