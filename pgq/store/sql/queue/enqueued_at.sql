-- Returns when tasks were enqueued. Read in the transaction that has enqueued them: there they cannot be gone yet.
SELECT id, enqueued_at FROM pgq_queue WHERE id = ANY (%(ids)s::uuid[])
