-- Enqueues many tasks in one statement; positions follow the order of the arrays.
-- It names the columns of a schedule only for tasks of one: a role that only enqueues has no right to them (see roles.sql).
INSERT INTO pgq_queue (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts,
                       run_after, remaining, key, signature{columns})
SELECT t.id, t.func, t.args, t.kwargs, t.options, t.queue, t.priority, t.name, t."group", t.hook, t.timeout,
       t.max_attempts, CASE WHEN t.run_after > clock_timestamp() THEN t.run_after END,
       t.remaining, t.key, t.signature{columns}
  FROM unnest(%(id)s::uuid[], %(func)s::text[], %(args)s::jsonb[], %(kwargs)s::jsonb[], %(options)s::jsonb[],
              %(queue)s::text[], %(priority)s::smallint[], %(name)s::text[], %(group)s::text[], %(hook)s::text[],
              %(timeout)s::float8[], %(max_attempts)s::integer[], %(run_after)s::timestamptz[],
              %(remaining)s::integer[], %(key)s::text[], %(signature)s::bytea[]{arrays})
    AS t (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts,
          run_after, remaining, key, signature{columns})
