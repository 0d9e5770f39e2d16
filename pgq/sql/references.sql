-- The foreign keys of other tables that refer to finished tasks, and whether they keep what they refer to from being
-- deleted (or change their own rows then).
SELECT conrelid::regclass || ' (constraint ' || conname || ')', confdeltype IN ('a', 'r')
  FROM pg_constraint
 WHERE confrelid = 'pgq_task'::regclass AND contype = 'f' AND conparentid = 0
 ORDER BY 1
