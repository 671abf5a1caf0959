-- A code as a word of lower-case letters, digits and underscores, as it stands in a link to its documentation.
CREATE OR REPLACE MACRO plain_word_of(code) AS regexp_replace(lower(code), '[^a-z0-9]+', '_', 'g');

-- How likely it is, at most, that `hits` of `trials` events leave out a given `gap` of these events by chance.
CREATE OR REPLACE MACRO chance_of_gap(hits, trials, gap) AS pow(1.0 - gap / nullif(trials, 0), hits);

-- Every error up to `until`, also before `since` and of others (NOT is_in_scope): what the API used to do tells what is
-- new. details_shape is that of the first entry of an envelope's details; NULL where the log has no whole envelope.
CREATE OR REPLACE MACRO error_answers(since, until, for_org, for_key, for_route) AS TABLE
SELECT
    ts, request_id, org_id, caller, method, route, path, status, code, docs_url, origin, body_state, gateway,
    idempotency_hash,
    (since IS NULL OR ts >= utc_moment(since))
    AND (for_org IS NULL OR coalesce(org_id = for_org, false))
    AND (for_key IS NULL OR coalesce(caller = for_key, false))
    AND (for_route IS NULL OR coalesce(route = for_route, false)) AS is_in_scope,
    request_id IS NOT NULL AS has_request_id,
    retry_after_s IS NOT NULL AS has_retry_after,
    upstream_ms IS NOT NULL AS has_upstream_ms,
    CASE
        WHEN code IS NULL OR body_state IS DISTINCT FROM 'whole' THEN NULL
        WHEN details IS NULL THEN 'no details'
        WHEN array_length(details) = 0 THEN 'empty details'
        WHEN details[1].issue IS NULL THEN 'a field without an issue'
        WHEN starts_with(details[1].issue, '{') OR starts_with(details[1].issue, '[') THEN 'JSON for an issue'
        WHEN details[1].field IS NULL THEN 'an issue without a field'
        ELSE 'field and issue'
    END AS details_shape
FROM requests
WHERE kind = 'error'
  AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)));
