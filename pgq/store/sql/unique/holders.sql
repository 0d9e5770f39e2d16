-- Returns the live tasks that have these unique keys: key and id.
SELECT q.unique_key, q.id
  FROM pgq_queue q
 WHERE q.unique_key = ANY (%(keys)s::text[])
