-- Takes a limit away; returns whether there was one.
SELECT pgq_drop_limit(%(name)s, %(scope)s)
