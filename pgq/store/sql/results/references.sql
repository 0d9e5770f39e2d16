-- Returns the foreign keys of other tables that refer to finished tasks, and whether each keeps from deletion what it refers
-- to. (The other ones change their own rows then.)
SELECT conrelid::regclass || ' (constraint ' || conname || ')', confdeltype IN ('a', 'r')
  FROM pg_constraint
 WHERE confrelid = 'pgq_task'::regclass AND contype = 'f' AND conparentid = 0
 ORDER BY 1
