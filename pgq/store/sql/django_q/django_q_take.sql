-- Takes a task out of Django-Q's queue for good, in its own terms: "not visible before the year 9000". Changes nothing if
-- a cluster has taken it since it was read.
UPDATE django_q_ormq SET lock = %(mark)s WHERE id = %(id)s AND coalesce(lock, %(mark)s) = %(lock)s
