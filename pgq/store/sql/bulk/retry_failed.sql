-- Runs those of some finished tasks again that are still failures; returns of each what pgq_retry says.
-- Checked again under a lock: another session may have run it again, and by now it may have succeeded.
WITH chosen AS MATERIALIZED (
     SELECT id FROM pgq_task WHERE id = ANY (%(ids)s) AND NOT success ORDER BY id FOR UPDATE SKIP LOCKED)
SELECT pgq_retry(id) FROM chosen
