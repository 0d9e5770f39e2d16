-- Runs a finished task again, or releases a parked or waiting one.
SELECT pgq_retry(%(id)s)
