-- Enqueues many tasks, but those whose unique key a live task has, or one before them in the arrays; returns the ids of the
-- others. In the order of the keys: two transactions that write the same keys wait for each other in one direction only.
INSERT INTO pgq_queue (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts,
                       run_after, key, expires_at, signature, unique_key, unique_until)
SELECT t.id, t.func, t.args, t.kwargs, t.options, t.queue, t.priority, t.name, t."group", t.hook, t.timeout,
       t.max_attempts, CASE WHEN t.run_after > clock_timestamp() THEN t.run_after END, t.key, t.expires_at, t.signature,
       t.unique_key, t.unique_until
  FROM unnest(%(id)s::uuid[], %(func)s::text[], %(args)s::jsonb[], %(kwargs)s::jsonb[], %(options)s::jsonb[],
              %(queue)s::text[], %(priority)s::smallint[], %(name)s::text[], %(group)s::text[], %(hook)s::text[],
              %(timeout)s::float8[], %(max_attempts)s::integer[], %(run_after)s::timestamptz[], %(key)s::text[],
              %(expires_at)s::timestamptz[], %(signature)s::bytea[], %(unique_key)s::text[], %(unique_until)s::text[])
       WITH ORDINALITY
    AS t (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts, run_after, key,
          expires_at, signature, unique_key, unique_until, place)
 ORDER BY t.unique_key COLLATE "C", t.place
    ON CONFLICT DO NOTHING
RETURNING id
