-- Begins the transaction, and marks it until it ends. It is a SET, since before SET TRANSACTION there must be no query.
SET LOCAL pgq.execution.atomic = 'on'
