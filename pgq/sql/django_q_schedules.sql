-- django_q_schedules
-- Django-Q's schedules, whatever columns its version had. In SQL that any database understands.
SELECT * FROM django_q_schedule WHERE id > %(after)s ORDER BY id LIMIT {limit}
