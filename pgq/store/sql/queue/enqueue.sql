-- Enqueues one task, on the caller's connection and in the caller's transaction.
-- It names only the columns that differ from their default: most tasks need five of them, and each costs time.
INSERT INTO pgq_queue ({columns}) VALUES ({values})
