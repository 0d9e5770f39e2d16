-- Enqueues one task as enqueue.sql does, unless a live task has its unique key; then it writes nothing. If another open
-- transaction has written that key, it waits for the end of that one. DO NOTHING names no columns: to name one needs the
-- right to read it.
INSERT INTO pgq_queue ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING
