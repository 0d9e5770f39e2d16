-- Wakes sleeping workers after an UPDATE made rows ready; after an INSERT the trigger does.
SELECT pgq_wake()
