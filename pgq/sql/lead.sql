-- Makes this transaction the leader's, or not. The lock ends with the transaction, so a leader that is frozen or cut off
-- blocks nobody for longer than its connection lives, and can write nothing once the lock is another's.
SELECT pg_try_advisory_xact_lock(hashtextextended('pgq tick ' || 'pgq_schedule'::regclass::oid, 0))
