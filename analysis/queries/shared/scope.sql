-- A moment that a person gave (date, timestamp or text; UTC) as a TIMESTAMPTZ. NULL stays NULL.
CREATE OR REPLACE MACRO utc_moment(moment) AS moment::TIMESTAMP AT TIME ZONE 'UTC';

-- The earliest request that was ingested.
CREATE OR REPLACE MACRO data_begins() AS (SELECT min(first_ts) FROM sources);

-- The latest request that was ingested: the end of a range whose `until` is not given.
CREATE OR REPLACE MACRO data_through() AS (SELECT max(last_ts) FROM sources);

-- First moment of the equally long period before `since`, in microseconds since 1970; NULL without a `since`.
CREATE OR REPLACE MACRO previous_since_us(since, until) AS
    2 * epoch_us(utc_moment(since)) - greatest(
        epoch_us(utc_moment(since)),
        epoch_us(coalesce(utc_moment(until), data_through()))
    );

-- Every request of [since, until) that the standard filters keep: the denominators. Days that lie wholly inside are
-- told by their partition and their `ts` is never read: eight times faster to count than one condition on `ts` over
-- all.
CREATE OR REPLACE MACRO requests_in_scope(since, until, for_org, for_key, for_route) AS TABLE
SELECT
    day, ts, request_id, org_id, key_id, key_hash, caller, client_ip, user_agent, method, route, path, status, code,
    details, gateway_reason, retry_after_s, idempotency_hash, recipient_hash, latency_ms, is_error, gateway, source_id, line
FROM requests
WHERE (since IS NULL OR day > since::TIMESTAMP::DATE)
  AND (until IS NULL OR day < until::TIMESTAMP::DATE)
  AND (for_org IS NULL OR org_id = for_org)
  AND (for_key IS NULL OR caller = for_key)
  AND (for_route IS NULL OR route = for_route)
UNION ALL
SELECT
    day, ts, request_id, org_id, key_id, key_hash, caller, client_ip, user_agent, method, route, path, status, code,
    details, gateway_reason, retry_after_s, idempotency_hash, recipient_hash, latency_ms, is_error, gateway, source_id, line
FROM requests
WHERE (day = since::TIMESTAMP::DATE OR day = until::TIMESTAMP::DATE)
  AND (since IS NULL OR ts >= utc_moment(since))
  AND (until IS NULL OR ts < utc_moment(until))
  AND (for_org IS NULL OR org_id = for_org)
  AND (for_key IS NULL OR caller = for_key)
  AND (for_route IS NULL OR route = for_route);

-- The first day that lies wholly after a moment, or begins with it. NULL stays NULL.
CREATE OR REPLACE MACRO first_whole_day(since) AS (since::TIMESTAMP - INTERVAL 1 MICROSECOND)::DATE + 1;

-- How many requests of [since, until) the standard filters keep, in parts to be summed up, each of one day, one who and
-- one where: the denominators. Successes of whole days were counted at ingest, and their rows are not read.
CREATE OR REPLACE MACRO request_counts(since, until, for_org, for_key, for_route) AS TABLE
SELECT
    day, org_id, key_id, key_hash, caller, client_ip, method, route, false AS is_error,
    successes AS requests, first_ts, last_ts
FROM daily_successes
WHERE (since IS NULL OR day >= first_whole_day(since))
  AND (until IS NULL OR day < until::TIMESTAMP::DATE)
  AND (for_org IS NULL OR org_id = for_org)
  AND (for_key IS NULL OR caller = for_key)
  AND (for_route IS NULL OR route = for_route)
UNION ALL
SELECT
    day, org_id, key_id, key_hash, caller, client_ip, method, route, false AS is_error,
    1 AS requests, ts AS first_ts, ts AS last_ts
FROM requests
WHERE kind = 'ok'
  AND ((day = since::TIMESTAMP::DATE AND day < first_whole_day(since)) OR day = until::TIMESTAMP::DATE)
  AND (since IS NULL OR ts >= utc_moment(since))
  AND (until IS NULL OR ts < utc_moment(until))
  AND (for_org IS NULL OR org_id = for_org)
  AND (for_key IS NULL OR caller = for_key)
  AND (for_route IS NULL OR route = for_route)
UNION ALL
SELECT
    day, org_id, key_id, key_hash, caller, client_ip, method, route, is_error,
    1 AS requests, ts AS first_ts, ts AS last_ts
FROM requests_in_scope(since, until, for_org, for_key, for_route)
WHERE is_error;

-- Every error of [since, until) that the standard filters keep (is_current), and with a `since` those of the equally
-- long period before it (not is_current). From requests: the catalogue is joined to groups of errors, not to each.
CREATE OR REPLACE MACRO errors_with_previous(since, until, for_org, for_key, for_code, for_route) AS TABLE
SELECT
    day, ts, org_id, key_id, key_hash, client_ip, method, route, code, origin, gateway_reason,
    since IS NULL OR ts >= utc_moment(since) AS is_current
FROM requests
WHERE kind = 'error'
  AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
  AND (since IS NULL OR epoch_us(ts) >= previous_since_us(since, until))
  AND (for_org IS NULL OR org_id = for_org)
  AND (for_key IS NULL OR caller = for_key)
  AND (for_code IS NULL OR code = for_code)
  AND (for_route IS NULL OR route = for_route);
