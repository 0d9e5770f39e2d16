-- Deletes the rows of pools that have been silent for so many seconds.
DELETE FROM pgq_worker WHERE heartbeat < statement_timestamp() - %(age)s * interval '1 second'
