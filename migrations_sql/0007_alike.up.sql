-- pgq 0007: which failures are alike.

INSERT INTO pgq_schema (version) VALUES (7) ON CONFLICT DO NOTHING;

-- What messages of one kind have in common: numbers, ids and addresses are replaced by #, the rest is cut at 200 characters.
CREATE OR REPLACE FUNCTION pgq_message_pattern(message text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT regexp_replace(left(message, 200), '0x[0-9a-fA-F]+|[0-9a-fA-F-]*[0-9][0-9a-fA-F-]*', '#', 'g')
$$;
COMMENT ON FUNCTION pgq_message_pattern IS 'The message of an error without what differs from one time to the next.';

-- The same 16 hex digits for failures that are alike, by function, exception and pattern of the message.
CREATE OR REPLACE FUNCTION pgq_fingerprint(func text, exception text, message text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
    SELECT lpad(to_hex(hashtextextended(concat_ws(E'\n', func, exception, pgq_message_pattern(message)), 0)), 16, '0')
$$;
COMMENT ON FUNCTION pgq_fingerprint IS 'The same for failures that are alike: by function, exception, and message without its numbers.';

DO $$
BEGIN
    PERFORM pgq_pin_search_path();
END
$$;
