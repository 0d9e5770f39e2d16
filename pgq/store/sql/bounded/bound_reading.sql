-- Makes this transaction read-only and bounds its statements; returns the bound before.
SELECT before.setting, set_config('statement_timeout', %(milliseconds)s, true), set_config('transaction_read_only', 'on', true)
  FROM (SELECT current_setting('statement_timeout') AS setting OFFSET 0) before
