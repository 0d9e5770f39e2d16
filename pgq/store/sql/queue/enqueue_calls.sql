-- Enqueues many tasks that have most in common, in one statement; positions follow the order of the rows.
-- COPY costs the server half as much as an INSERT from arrays, and the client a third.
COPY pgq_queue ({columns}) FROM STDIN
