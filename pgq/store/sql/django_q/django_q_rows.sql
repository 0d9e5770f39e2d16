-- Reads the next rows of one of Django-Q's tables, with whatever columns its version had. Any database understands it.
SELECT * FROM {table} WHERE id > %(after)s ORDER BY id LIMIT {limit}
