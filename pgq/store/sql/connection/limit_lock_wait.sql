-- Makes each statement of this transaction fail when it has waited so long for a lock. Returns the limit before.
SELECT current_setting('lock_timeout') AS before, set_config('lock_timeout', %(limit)s, true)
