-- Makes this transaction the leader's, if no other holds the key, and returns whether it is. The lock ends with the
-- transaction. PostgreSQL ends the transaction of a leader that is silent for some seconds, frozen or cut off: such a
-- leader blocks the others no longer, and can write nothing once another has the lock.
SELECT set_config('idle_in_transaction_session_timeout', '5000', true),
       pg_try_advisory_xact_lock(hashtextextended('pgq tick ' || 'pgq_schedule'::regclass::oid, 0))
