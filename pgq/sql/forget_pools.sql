DELETE FROM pgq_worker WHERE heartbeat < statement_timestamp() - %(age)s * interval '1 second'
