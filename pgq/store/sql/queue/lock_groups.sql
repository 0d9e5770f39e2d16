-- Locks these groups until the transaction ends: one transaction at a time settles tasks of a group.
SELECT pg_advisory_xact_lock(hashtextextended('pgq group ' || name, 0))
  FROM unnest(%(groups)s::text[]) AS name
 ORDER BY name
