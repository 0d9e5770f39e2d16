-- Makes this transaction the leader's, or not. The lock ends with the transaction; and the server ends the transaction of
-- a leader that says nothing for some seconds, frozen or cut off: so it blocks nobody for longer, and once the lock is
-- another's it can write nothing.
SELECT set_config('idle_in_transaction_session_timeout', '5000', true),
       pg_try_advisory_xact_lock(hashtextextended('pgq tick ' || 'pgq_schedule'::regclass::oid, 0))
