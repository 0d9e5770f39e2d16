-- Forgets results that were kept only until somebody had read them: of these tasks, and of these groups' parts.
-- One that another table refers to stays: it must not fail the settlements beside it.
SELECT pgq_delete_results(ARRAY(
    SELECT id FROM pgq_task
     WHERE id = ANY (%(ids)s::uuid[])
        OR ("group" = ANY (%(groups)s::text[]) AND options ? 'collector')))
