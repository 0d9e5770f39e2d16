-- Returns what the checks found when they were last run, the worst first.
SELECT "check", status, detail, advice, since, checked_at
  FROM pgq_finding
 ORDER BY array_position('{problem,warning,ok}', status), "check"
