-- Enqueues one task for each row of a query, which yields the arguments as a jsonb array.
-- PostgreSQL makes the ids, so these rows carry no signature.
INSERT INTO pgq_queue (func, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts, run_after, key,
                       expires_at, args)
SELECT %s, %s::jsonb, %s::jsonb, %s, %s::smallint, %s::text, %s::text, %s::text, %s::float8, %s::integer, %s::timestamptz,
       %s::text, %s::timestamptz, row.args
  FROM ({query}) AS row (args)
