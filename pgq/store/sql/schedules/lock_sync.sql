-- Has the transactions that bring the table of schedules in step with code follow one another: each sees what the one
-- before has written.
SELECT pg_advisory_xact_lock(hashtextextended('pgq sync ' || 'pgq_schedule'::regclass::oid, 0))
