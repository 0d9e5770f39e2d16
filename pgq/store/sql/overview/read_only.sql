-- Has the transaction, or what remains of it after the last savepoint, write nothing, wait for little and take not long.
SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', %(milliseconds)s, true),
       set_config('lock_timeout', '500', true), set_config('jit', 'off', true)
