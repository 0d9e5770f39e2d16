-- Draws a transaction id, as every write does.
SELECT pg_current_xact_id()
