-- One settler at a time for each of these groups, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('pgq group ' || name, 0))
  FROM unnest(%(groups)s::text[]) AS name
 ORDER BY name
