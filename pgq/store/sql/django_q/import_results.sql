-- Inserts finished tasks that another queue has run; returns the ids of those that were not there yet.
INSERT INTO pgq_task (id, success, attempt_count, started, stopped, enqueued_at, func, queue, args, kwargs, options, result,
                      name, "group", hook, cluster, exception, message, traceback, signature)
SELECT t.id, t.success, t.attempt_count, t.started, t.stopped, t.started, t.func, t.queue, t.args, t.kwargs, t.options,
       t.result, t.name, t."group", t.hook, t.cluster, t.exception, t.message, t.traceback, t.signature
  FROM unnest(%(id)s::uuid[], %(success)s::boolean[], %(attempt_count)s::smallint[], %(started)s::timestamptz[],
              %(stopped)s::timestamptz[], %(func)s::text[], %(queue)s::text[], %(args)s::jsonb[], %(kwargs)s::jsonb[],
              %(options)s::jsonb[], %(result)s::jsonb[], %(name)s::text[], %(group)s::text[], %(hook)s::text[],
              %(cluster)s::text[], %(exception)s::text[], %(message)s::text[], %(traceback)s::text[],
              %(signature)s::bytea[])
    AS t (id, success, attempt_count, started, stopped, func, queue, args, kwargs, options, result, name, "group", hook,
          cluster, exception, message, traceback, signature)
ON CONFLICT (id) DO NOTHING
RETURNING id
