-- Takes its unique key from a live task.
UPDATE pgq_queue SET unique_key = NULL WHERE id = %(id)s AND unique_key IS NOT NULL
