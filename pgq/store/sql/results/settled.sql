-- Returns the finished tasks of these ids: whole rows, or what is needed to tell the result.
SELECT {columns}
  FROM pgq_task t
 WHERE t.id = ANY (%(ids)s::uuid[])
