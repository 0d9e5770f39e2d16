-- Wakes sleeping workers after an UPDATE made rows ready; INSERT does so by its trigger.
SELECT pgq_wake()
