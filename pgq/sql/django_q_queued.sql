-- django_q_queued
-- Django-Q's queue (its ORM broker).
SELECT * FROM django_q_ormq WHERE id > %(after)s ORDER BY id LIMIT {limit}
