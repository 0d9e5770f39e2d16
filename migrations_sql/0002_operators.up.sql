-- pgq 0002: views to look at and functions to act with, for psql, the admin and the commands alike.

INSERT INTO pgq_schema (version) VALUES (2) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION pgq_enqueue(
    func text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority smallint DEFAULT 0, run_after timestamptz DEFAULT NULL, name text DEFAULT NULL,
    max_attempts integer DEFAULT 1, timeout double precision DEFAULT NULL
) RETURNS uuid LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO pgq_queue (func, args, kwargs, queue, priority, run_after, name, max_attempts, timeout)
    VALUES (func, args, kwargs, queue, priority, CASE WHEN run_after > clock_timestamp() THEN run_after END, name,
            max_attempts, timeout)
    RETURNING id
$$;
COMMENT ON FUNCTION pgq_enqueue IS 'Enqueues a task; func must be registered with @task. Returns its id.';

CREATE OR REPLACE FUNCTION pgq_cancel(task uuid) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    running boolean;
BEGIN
    -- A queued task becomes ready: the worker that claims it settles it without running it, so that hooks, chains and
    -- groups hear of it in the same way as of any other end.
    UPDATE pgq_queue q
       SET cancelled = true, run_after = NULL, remaining = NULL, parked = NULL,
           position = CASE WHEN q.lock IS NULL THEN nextval('pgq_position') ELSE q.position END
     WHERE q.id = task
    RETURNING q.lock IS NOT NULL INTO running;
    IF NOT FOUND THEN
        RETURN CASE WHEN EXISTS (SELECT FROM pgq_task t WHERE t.id = task) THEN 'finished' ELSE 'unknown' END;
    END IF;
    IF running THEN
        PERFORM pg_notify('pgq_control', '');
        RETURN 'running';
    END IF;
    PERFORM pgq_wake();
    RETURN 'queued';
END
$$;
COMMENT ON FUNCTION pgq_cancel IS
    'Cancels a task. Returns queued (it will not run), running (it is being interrupted), finished (too late) or unknown.';

CREATE OR REPLACE FUNCTION pgq_retry(task uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- The same task, by its id and signature, with all its attempts again; what went wrong goes into its history.
    WITH gone AS (
        DELETE FROM pgq_task t WHERE t.id = task AND NOT EXISTS (SELECT FROM pgq_queue q WHERE q.id = task) RETURNING t.*
    )
    INSERT INTO pgq_queue (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts,
                           schedule, slot, signature, enqueued_at, history)
    SELECT id, gone.func, gone.args, gone.kwargs, gone.options, gone.queue, gone.priority, gone.name, gone."group",
           gone.hook, gone.timeout, gone.max_attempts, NULL, NULL, signature, enqueued_at,
           CASE WHEN success THEN history ELSE history || jsonb_build_object(
               'exception', exception, 'message', message, 'traceback', traceback, 'attempt', attempt_count,
               'worker', worker, 'at', stopped) END
      FROM gone;
    IF FOUND THEN
        RETURN true;
    END IF;
    -- A parked or waiting task is made ready.
    UPDATE pgq_queue q
       SET parked = NULL, run_after = NULL, position = nextval('pgq_position')
     WHERE q.id = task AND q.lock IS NULL AND (q.parked IS NOT NULL OR q.run_after IS NOT NULL);
    IF FOUND THEN
        PERFORM pgq_wake();
    END IF;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgq_retry IS 'Runs a finished task again, or releases a parked or waiting one now. False: there is none.';

CREATE OR REPLACE FUNCTION pgq_pause(queue text) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO pgq_lane AS l (queue, priority, paused) VALUES (queue, 0, true)
    ON CONFLICT (queue, priority) DO UPDATE SET paused = true
$$;
COMMENT ON FUNCTION pgq_pause IS 'Nobody claims from this queue until pgq_resume. Running tasks finish.';

CREATE OR REPLACE FUNCTION pgq_resume(queue text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE pgq_lane l SET paused = false WHERE l.queue = pgq_resume.queue AND l.paused;
    PERFORM pgq_wake();
END
$$;
COMMENT ON FUNCTION pgq_resume IS 'Lets workers claim from a paused queue again.';

CREATE OR REPLACE VIEW pgq_queue_depth AS
SELECT q.queue, q.priority,
       count(*) FILTER (WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL) AS ready,
       count(*) FILTER (WHERE parked IS NULL AND (run_after IS NOT NULL OR remaining IS NOT NULL)) AS waiting,
       count(*) FILTER (WHERE lock IS NOT NULL) AS running,
       count(*) FILTER (WHERE parked IS NOT NULL) AS parked,
       clock_timestamp() - min(enqueued_at) FILTER (
           WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL) AS oldest_ready,
       EXISTS (SELECT FROM pgq_lane l WHERE l.queue = q.queue AND l.paused) AS paused
  FROM pgq_queue q
 GROUP BY q.queue, q.priority
 ORDER BY q.queue, q.priority DESC;
COMMENT ON VIEW pgq_queue_depth IS 'How many tasks each queue and priority holds, by state, and the age of the oldest ready one.';

CREATE OR REPLACE VIEW pgq_running AS
SELECT q.id, q.func, q.queue, clock_timestamp() - q.lock AS leased_for, q.attempts AS attempt, q.cancelled,
       pool.name AS pool, pool.host, (w ->> 'pid')::integer AS pid, (w ->> 'seconds')::float8 AS seconds,
       q.worker, q.args
  FROM pgq_queue q
  LEFT JOIN pgq_worker pool ON pool.workers @> jsonb_build_array(jsonb_build_object('id', replace(q.worker::text, '-', '')))
  LEFT JOIN LATERAL jsonb_array_elements(pool.workers) w ON w ->> 'id' = replace(q.worker::text, '-', '')
 WHERE q.lock IS NOT NULL
 ORDER BY q.lock;
COMMENT ON VIEW pgq_running IS 'Tasks in the hands of workers: where, and since when. seconds is as of the last heartbeat.';

CREATE OR REPLACE VIEW pgq_failures_by_function AS
SELECT func, exception, count(*) AS failures, max(stopped) AS last, (array_agg(message ORDER BY stopped DESC))[1] AS last_message,
       (array_agg(id ORDER BY stopped DESC))[1] AS last_id
  FROM pgq_task
 WHERE NOT success AND id >= pgq_uuid7_floor(now() - interval '7 days') AND stopped > now() - interval '24 hours'
 GROUP BY func, exception
 ORDER BY failures DESC;
COMMENT ON VIEW pgq_failures_by_function IS 'Failures of the last 24 hours (of tasks enqueued in the last 7 days) by function and exception.';

CREATE OR REPLACE VIEW pgq_schedule_next AS
SELECT s.id, s.name, s.func, s.schedule_type, s.cron, s.next_run, s.next_run - now() AS due_in, s.repeats, s.paused, s.error,
       last.success AS last_success, last.stopped AS last_stopped
  FROM pgq_schedule s
  LEFT JOIN pgq_task last ON last.id = s.task
 ORDER BY s.paused, s.next_run NULLS LAST;
COMMENT ON VIEW pgq_schedule_next IS 'Schedules, soonest first, with what became of their last task.';
