-- Sets a limit as an operator does: code leaves it as it is from now on.
SELECT pgq_set_limit(%(name)s, %(concurrency)s, %(rate)s, %(period)s, %(smooth)s, %(strict)s, %(scope)s, %(pinned)s)
