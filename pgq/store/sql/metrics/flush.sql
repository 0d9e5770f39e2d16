-- Writes what a worker has counted since its last flush. Sent twice, since it is not known whether a commit took place,
-- it is written once.
INSERT INTO pgq_metric_raw (worker, seq, body) VALUES (%(worker)s, %(seq)s, %(body)s)
ON CONFLICT DO NOTHING
