-- Returns the finished tasks of these ids, as whole rows.
SELECT t.*
  FROM pgq_task t
 WHERE t.id = ANY (%(ids)s::uuid[])
