-- Deletes results that were kept only until they were read: of these tasks, and of these groups' parts.
-- A result that another table refers to stays: an error here would undo the settlements beside it.
SELECT pgq_delete_results(ARRAY(
    SELECT id FROM pgq_task
     WHERE id = ANY (%(ids)s::uuid[])
        OR ("group" = ANY (%(groups)s::text[]) AND options ? 'collector')))
