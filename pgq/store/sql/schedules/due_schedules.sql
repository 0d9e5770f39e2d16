-- Returns the schedules that are due, and locks them until the transaction ends. Python works out the next slot of each.
SELECT id, name, func, hook, args::text, kwargs::text, options::text, queue, priority, schedule_type, minutes, seconds, cron,
       repeats, next_run, time_zone, catch_up, overlap, jitter, intended_date_kwarg, day, wall_time, task, signature,
       coalesce(%(now)s::timestamptz, statement_timestamp()) AS now
  FROM pgq_schedule
 WHERE NOT paused AND repeats <> 0 AND next_run <= coalesce(%(now)s::timestamptz, statement_timestamp())
   AND (retry_at IS NULL OR retry_at <= coalesce(%(now)s::timestamptz, statement_timestamp()))
   AND (%(queues)s::text[] IS NULL OR queue IS NULL OR queue {among} (%(queues)s::text[]))
   AND (%(excluded)s::text[] IS NULL OR queue IS NULL OR queue {apart} (%(excluded)s::text[]))
 ORDER BY next_run
 LIMIT %(limit)s
   FOR UPDATE SKIP LOCKED
