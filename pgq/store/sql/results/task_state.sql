-- Returns what is known of a task, live or finished: one statement, so that a task that is settled meanwhile is not missed.
-- A row that was inserted by hand may have the id of a finished task: the finished one comes first.
SELECT id, func, queue, priority, args::text AS args, kwargs::text AS kwargs, options::text AS options, hook, "group",
       timeout, max_attempts, signature, history::text AS history, enqueued_at, worker, started, stopped, success,
       result::text AS result, exception, message, traceback, NULL::text AS parked, key
  FROM pgq_task
 WHERE id = %(id)s
 UNION ALL
SELECT id, func, queue, priority, args::text, kwargs::text, options::text, hook, "group",
       timeout, max_attempts, signature, history::text, enqueued_at, worker, lock, NULL, NULL,
       NULL, NULL, NULL, NULL, parked, key
  FROM pgq_queue
 WHERE id = %(id)s
