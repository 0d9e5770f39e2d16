-- Returns what upkeep has to do: whether a task is to end without being run, whether a waiting task is due, whether a
-- schedule is, and when the next of them. It is one cheap statement, so that an idle pool costs one query a tick.
SELECT coalesce(unstarted.at <= statement_timestamp(), false)
           OR EXISTS (SELECT FROM pgq_queue WHERE cancelled AND lock IS NULL) AS tasks_ended,
       coalesce(task.at <= statement_timestamp(), false) AS tasks_due,
       coalesce(schedule.at <= statement_timestamp(), false) AS schedules_due,
       extract(epoch FROM least(task.at, schedule.at, unstarted.at) - statement_timestamp())::float8 AS next_in
  FROM (SELECT min(run_after) AS at FROM pgq_queue WHERE run_after IS NOT NULL) task,
       (SELECT min(expires_at) AS at FROM pgq_queue WHERE expires_at IS NOT NULL AND lock IS NULL AND attempts = 0) unstarted,
       (SELECT min(greatest(next_run, retry_at)) AS at FROM pgq_schedule WHERE NOT paused AND repeats <> 0) schedule
