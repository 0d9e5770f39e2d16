-- django_q_results
-- Django-Q's finished tasks.
SELECT * FROM django_q_task WHERE id > %(after)s ORDER BY id LIMIT {limit}
