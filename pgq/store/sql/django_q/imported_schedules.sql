-- Returns the schedules that came from Django-Q: their ids there, and here.
SELECT options ->> 'django_q_id', id FROM pgq_schedule WHERE options ? 'django_q_id'
