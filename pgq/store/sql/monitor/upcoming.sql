-- Returns schedules, those that fire first before the others, with what became of the last task of each.
SELECT s.id, s.name, s.func, s.schedule_type, s.minutes, s.seconds, s.cron, s.time_zone, s.day, s.wall_time, s.paused,
       s.repeats, s.error, extract(epoch FROM s.next_run - clock_timestamp())::float8 AS due,
       last.success AS succeeded, extract(epoch FROM clock_timestamp() - last.stopped)::float8 AS ago
  FROM (SELECT * FROM pgq_schedule
         ORDER BY error IS NULL, paused OR repeats = 0, next_run NULLS LAST, id LIMIT %(limit)s) s
  LEFT JOIN pgq_task last ON last.id = s.task
 ORDER BY s.error IS NULL, s.paused OR s.repeats = 0, s.next_run NULLS LAST, s.id
