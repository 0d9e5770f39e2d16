-- Takes a unique key from the task that has taken it for a time.
DELETE FROM pgq_unique WHERE key = %(key)s
