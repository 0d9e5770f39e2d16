-- Counts the schedules: all, those that will fire again, those that could not be fired.
SELECT count(*), count(*) FILTER (WHERE NOT paused AND repeats <> 0 AND next_run IS NOT NULL),
       count(*) FILTER (WHERE error IS NOT NULL)
  FROM pgq_schedule
