-- Keeps what the checks have found; `since` changes with the status only. Checks that are gone go.
WITH found AS (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) f ("check" text, status text, detail text, advice text)
), gone AS (
    DELETE FROM pgq_finding p WHERE p."check" NOT IN (SELECT f."check" FROM found f)
)
INSERT INTO pgq_finding AS p ("check", status, detail, advice)
SELECT f."check", f.status, f.detail, f.advice FROM found f ORDER BY f."check"
ON CONFLICT ("check") DO UPDATE
   SET status = excluded.status, detail = excluded.detail, advice = excluded.advice, checked_at = excluded.checked_at,
       since = CASE WHEN p.status = excluded.status THEN p.since ELSE excluded.since END
