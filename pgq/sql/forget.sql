-- Forgets results that were kept only until somebody had read them: of these tasks, and of these groups' parts.
DELETE FROM pgq_task
 WHERE id = ANY (%(ids)s::uuid[])
    OR ("group" = ANY (%(groups)s::text[]) AND options ? 'collector')
