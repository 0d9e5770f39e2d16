-- Has PostgreSQL end each statement of this transaction, or of this savepoint, after so many milliseconds.
SELECT set_config('statement_timeout', %(milliseconds)s::text, true)
