-- Takes back what peek.sql said, unless another pool has said it since.
SELECT setval('pgq_sleep_until', 0) FROM pgq_sleep_until WHERE last_value = %(said)s
