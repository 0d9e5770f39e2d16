-- Settles finished tasks: the row leaves pgq_queue and the result enters pgq_task, or neither.
-- Fenced by the receipt: a row that was rescued, cancelled or deleted meanwhile is left alone.
-- Returns the ids that were settled; those not returned had lost their lease.
-- Times come as microseconds before now, since only the clock of the database counts.
WITH receipt AS MATERIALIZED (
    SELECT task, proof, success, keep, result, exception, message, traceback, place,
           statement_timestamp() - started * interval '1 microsecond' AS began,
           statement_timestamp() - stopped * interval '1 microsecond' AS ended
      FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[], %(success)s::boolean[], %(keep)s::boolean[],
                  %(started)s::bigint[], %(stopped)s::bigint[],
                  %(result)s::jsonb[], %(exception)s::text[], %(message)s::text[], %(traceback)s::text[],
                  %(ctid)s::tid[])
        AS r (task, proof, success, keep, started, stopped, result, exception, message, traceback, place)
), there AS (
    -- Where the claim left the row: to search for each id costs 4 % more, and 7 % where queues are mixed.
    DELETE FROM pgq_queue q
     USING receipt r
     WHERE q.ctid = r.place AND q.id = r.task AND q.receipt = r.proof
    RETURNING q.*, r.*
), moved AS (
    -- A row that was written since, as by each renewal of its lease, lies elsewhere. (Most batches have none: then the
    -- counts are the same, and nobody looks.)
    DELETE FROM pgq_queue q
     USING receipt r
     WHERE q.id = r.task AND q.receipt = r.proof
       AND (SELECT count(*) FROM there) < (SELECT count(*) FROM receipt) AND r.task NOT IN (SELECT id FROM there)
    RETURNING q.*, r.*
), gone AS NOT MATERIALIZED (
    SELECT * FROM there UNION ALL SELECT * FROM moved
), saved AS (
    INSERT INTO pgq_task (id, success, attempt_count, priority, max_attempts, timeout, started, stopped, enqueued_at, func, queue, args, kwargs,
                          options, result, name, "group", hook, cluster, worker, schedule, exception, message,
                          traceback, signature, history)
    SELECT id, success, attempts, priority, max_attempts, timeout, began, ended, enqueued_at, func, queue, args, kwargs,
           options, result, name, "group", hook, %(cluster)s, worker, schedule, exception, message,
           traceback, signature, history
      FROM gone
     WHERE keep
    -- Only a row put in by hand has the id of a finished task: pgq_retry takes the finished row away first. So whoever may
    -- insert changes nobody's result; that it was tried stands in the history.
    ON CONFLICT (id) DO UPDATE
       SET history = pgq_task.history || jsonb_build_object(
               'exception', 'pgq.errors.NotAllowed', 'traceback', '', 'attempt', excluded.attempt_count,
               'worker', excluded.worker, 'at', excluded.stopped,
               'message', 'a row with the id of this finished task was run; its outcome is not kept')
), told AS (
    -- Only if somebody waits for a result, since NOTIFY serialises commits.
    SELECT count(pg_notify('pgq_settled', ''))
      FROM pgq_wait_until
     WHERE last_value > extract(epoch FROM clock_timestamp()) * 1000 AND pg_notification_queue_usage() < 0.5
), patience AS MATERIALIZED (
    -- A worker that freezes between this and its commit would keep these rows locked, and nobody could rescue them.
    -- (NULL leaves it: a caller's own transaction is the caller's business.)
    -- MATERIALIZED, so that it is set once, not for each row.
    SELECT set_config('idle_in_transaction_session_timeout', %(patience)s::text, true)
     WHERE %(patience)s::text IS NOT NULL
     UNION ALL SELECT '' LIMIT 1
)
SELECT id
  FROM gone, told, patience
