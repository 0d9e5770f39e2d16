-- Takes a schedule from Django-Q, in its own terms: "not due before the year 9000". Changes nothing if a cluster has fired it
-- since it was read.
UPDATE django_q_schedule SET next_run = %(mark)s WHERE id = %(id)s AND next_run = %(next_run)s
