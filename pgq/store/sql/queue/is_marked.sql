-- Returns whether this is still the transaction that mark_transaction.sql has marked.
SELECT current_setting('pgq.execution.atomic', true) = 'on'
