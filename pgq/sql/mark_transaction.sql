-- Begins the transaction, and marks it until it ends. A SET, since before SET TRANSACTION there must be no query.
SET LOCAL pgq.atomic = 'on'
