-- Lowers the flag that peek.sql raised, unless another pool has raised it since.
SELECT setval('pgq_sleep_until', 0) FROM pgq_sleep_until WHERE last_value = %(flag)s
