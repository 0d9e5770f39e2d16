-- The schedules that came from Django-Q: its ids, and ours.
SELECT options ->> 'django_q_id', id FROM pgq_schedule WHERE options ? 'django_q_id'
