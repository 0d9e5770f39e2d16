-- Makes each statement of this transaction fail when it has waited so many milliseconds for a lock.
SELECT set_config('lock_timeout', %(milliseconds)s, true)
