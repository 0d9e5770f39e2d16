-- Returns the deferred foreign keys to pgq_schedule, as SET CONSTRAINTS names them.
SELECT string_agg(quote_ident(nspname) || '.' || quote_ident(conname), ', ')
  FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace
 WHERE contype = 'f' AND confrelid = 'pgq_schedule'::regclass AND condeferred
