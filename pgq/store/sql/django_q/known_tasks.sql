-- Returns which of these tasks are here, live or finished.
SELECT id FROM pgq_queue WHERE id = ANY (%(ids)s::uuid[])
UNION
SELECT id FROM pgq_task WHERE id = ANY (%(ids)s::uuid[])
