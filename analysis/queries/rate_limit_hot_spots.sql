-- title: Rate-limit hot spots
-- asks: Who runs into rate limits, where, how hard, and do they wait as long as they are told to?
-- codes: rate_limited
-- chart: bar(caller, rate_limited)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_shared_keys: so many keys limited in one minute at one address are a limit per address
-- param tolerance_s: a retry may come this much before its Retry-After has passed
-- columns:
--   caller: key_id, else key_hash, else client_ip
--   org_id: organisation of the refused requests
--   route: path with its ids folded
--   limited_per: key or ip; ip for keyless callers, and where half of the refusals fall into minutes in which at least
--     min_shared_keys keys of one address, and no fewer than half of its active keys, were limited together
--   rate_limited: requests refused with 429 or the code rate_limited
--   requests: requests of the caller, organisation and route, whatever their answer
--   rate: rate_limited / requests
--   caller_requests: requests of the caller in scope
--   share_of_caller: rate_limited / caller_requests
--   peak_per_minute: most refusals in one minute of the clock
--   longest_run: most refusals in a row, no other answer between them
--   longest_run_s: seconds from the first to the last of them
--   first_seen: earliest refusal
--   last_seen: latest refusal
--   with_retry_after: refusals that said how long to wait
--   retried_too_early: those of them after which the caller asked the same (method, path, idempotency key) again too
--     early; where the path names an object, only if that failed as well
--   intent_confidence: how surely that was the same request again: high with idempotency keys, medium on paths that
--     name one object, low where other requests share the path
CREATE OR REPLACE MACRO rate_limit_hot_spots(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_shared_keys := 3, tolerance_s := 0.25
) AS TABLE
WITH refusals AS (
    SELECT
        caller, key_id, key_hash, client_ip, org_id, route, method, intent_path_of(route, path) AS intent_path,
        idempotency_hash, ts, retry_after_s,
        minute_of(ts) AS minute_number
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error
      AND is_rate_limited(status, code)
),
-- Of the successes, which are many, neither the path is read, the widest column of all, nor caller computed before the
-- join: rows are chosen by key_id, all keyless ones with it, and only then by caller.
limited_keys AS (
    SELECT DISTINCT key_id
    FROM refusals
),
limited_callers AS (
    SELECT DISTINCT caller
    FROM refusals
),
successes AS (
    SELECT
        coalesce(answered.key_id, answered.key_hash, answered.client_ip) AS caller,
        answered.org_id, answered.route, answered.method, answered.idempotency_hash, answered.ts, answered.latency_ms
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS answered
    INNER JOIN limited_keys ON limited_keys.key_id IS NOT DISTINCT FROM answered.key_id
    WHERE NOT answered.is_error
),
traffic AS (
    SELECT
        caller, org_id, route, method, intent_path_of(route, path) AS intent_path, idempotency_hash, ts, latency_ms,
        is_rate_limited(status, code) AS is_refusal,
        true AS is_intent_known
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error
      AND caller IN (SELECT caller FROM limited_callers)
    UNION ALL
    SELECT
        caller, org_id, route, method, route AS intent_path, idempotency_hash, ts, latency_ms,
        false AS is_refusal,
        NOT names_object(route) AS is_intent_known
    FROM successes
    WHERE caller IN (SELECT caller FROM limited_callers)
),
traffic_cells AS (
    SELECT caller, org_id, route, count(*) AS requests
    FROM traffic
    GROUP BY ALL
),
caller_totals AS (
    SELECT caller, sum(requests) AS caller_requests
    FROM traffic_cells
    GROUP BY ALL
),
minutes AS (
    SELECT caller, org_id, route, minute_number, count(*) AS refused
    FROM refusals
    GROUP BY ALL
),
cells AS (
    SELECT caller, org_id, route, sum(refused) AS rate_limited, max(refused) AS peak_per_minute
    FROM minutes
    GROUP BY ALL
),
answers AS (
    SELECT
        traffic.caller,
        traffic.org_id,
        traffic.route,
        traffic.ts,
        traffic.is_refusal,
        count(*) FILTER (WHERE NOT traffic.is_refusal) OVER (
            PARTITION BY traffic.caller, traffic.org_id, traffic.route
            ORDER BY traffic.ts, traffic.is_refusal
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS other_answers_before
    FROM traffic
    INNER JOIN cells
        ON cells.caller = traffic.caller
        AND cells.org_id IS NOT DISTINCT FROM traffic.org_id
        AND cells.route IS NOT DISTINCT FROM traffic.route
),
runs AS (
    SELECT
        caller, org_id, route, other_answers_before,
        count(*) AS run_length,
        (epoch_us(max(ts)) - epoch_us(min(ts))) / 1e6 AS run_s
    FROM answers
    WHERE is_refusal
    GROUP BY ALL
),
ranked_runs AS (
    SELECT
        caller, org_id, route, run_length, run_s,
        row_number() OVER (
            PARTITION BY caller, org_id, route
            ORDER BY run_length DESC, run_s DESC, other_answers_before
        ) AS run_rank
    FROM runs
),
crowded_minutes AS (
    SELECT client_ip, minute_number, count(DISTINCT coalesce(key_id, key_hash)) AS limited_keys
    FROM refusals
    WHERE client_ip IS NOT NULL
    GROUP BY ALL
    HAVING count(DISTINCT coalesce(key_id, key_hash)) >= min_shared_keys
),
active_minutes AS (
    SELECT
        traffic_there.client_ip,
        minute_of(traffic_there.ts) AS minute_number,
        count(DISTINCT coalesce(traffic_there.key_id, traffic_there.key_hash)) AS active_keys
    FROM requests_in_scope(since, until, NULL, NULL, NULL) AS traffic_there
    INNER JOIN (SELECT DISTINCT client_ip FROM crowded_minutes) AS crowded
        ON crowded.client_ip = traffic_there.client_ip
    GROUP BY ALL
),
shared_minutes AS (
    SELECT crowded_minutes.client_ip, crowded_minutes.minute_number
    FROM crowded_minutes
    INNER JOIN active_minutes
        ON active_minutes.client_ip = crowded_minutes.client_ip
        AND active_minutes.minute_number = crowded_minutes.minute_number
    WHERE 2 * crowded_minutes.limited_keys >= active_minutes.active_keys
),
evidence AS (
    SELECT
        refusals.caller,
        refusals.org_id,
        refusals.route,
        CASE
            WHEN bool_and(refusals.key_id IS NULL AND refusals.key_hash IS NULL) THEN 'ip'
            WHEN 2 * count(shared_minutes.client_ip) >= count(*) THEN 'ip'
            ELSE 'key'
        END AS limited_per,
        min(refusals.ts) AS first_seen,
        max(refusals.ts) AS last_seen,
        count(refusals.retry_after_s) AS with_retry_after,
        CASE
            WHEN bool_and(intent_confidence_of(idempotency_hash, refusals.route) = 'high') THEN 'high'
            WHEN bool_and(intent_confidence_of(idempotency_hash, refusals.route) <> 'low') THEN 'medium'
            ELSE 'low'
        END AS intent_confidence
    FROM refusals
    LEFT JOIN shared_minutes
        ON shared_minutes.client_ip = refusals.client_ip
        AND shared_minutes.minute_number = refusals.minute_number
    GROUP BY ALL
),
-- The end of every refusal that said how long to wait, and the start of every attempt, in one sequence per intent.
moments AS (
    SELECT
        caller, org_id, route, method, intent_path, idempotency_hash,
        epoch_us(ts) AS moment_us,
        retry_after_s,
        NULL AS attempt_us
    FROM refusals
    WHERE retry_after_s IS NOT NULL
    UNION ALL
    SELECT
        caller, org_id, route, method, intent_path, idempotency_hash,
        start_us(ts, latency_ms) AS moment_us,
        NULL AS retry_after_s,
        start_us(ts, latency_ms) AS attempt_us
    FROM traffic
    WHERE is_intent_known
),
next_attempts AS (
    SELECT
        caller, org_id, route, moment_us, retry_after_s,
        min(attempt_us) OVER (
            PARTITION BY caller, method, intent_path, idempotency_hash
            ORDER BY moment_us
            RANGE BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ) AS next_attempt_us
    FROM moments
),
early_retries AS (
    SELECT caller, org_id, route, count(*) AS retried_too_early
    FROM next_attempts
    WHERE next_attempt_us - moment_us < (retry_after_s - tolerance_s) * 1e6
    GROUP BY ALL
)
SELECT
    cells.caller,
    cells.org_id,
    cells.route,
    evidence.limited_per,
    cells.rate_limited::BIGINT AS rate_limited,
    traffic_cells.requests,
    cells.rate_limited / traffic_cells.requests AS rate,
    caller_totals.caller_requests::BIGINT AS caller_requests,
    cells.rate_limited / caller_totals.caller_requests AS share_of_caller,
    cells.peak_per_minute,
    ranked_runs.run_length AS longest_run,
    ranked_runs.run_s AS longest_run_s,
    evidence.first_seen,
    evidence.last_seen,
    evidence.with_retry_after,
    coalesce(early_retries.retried_too_early, 0) AS retried_too_early,
    evidence.intent_confidence
FROM cells
INNER JOIN evidence
    ON evidence.caller = cells.caller
    AND evidence.org_id IS NOT DISTINCT FROM cells.org_id
    AND evidence.route IS NOT DISTINCT FROM cells.route
INNER JOIN traffic_cells
    ON traffic_cells.caller = cells.caller
    AND traffic_cells.org_id IS NOT DISTINCT FROM cells.org_id
    AND traffic_cells.route IS NOT DISTINCT FROM cells.route
INNER JOIN caller_totals ON caller_totals.caller = cells.caller
INNER JOIN ranked_runs
    ON ranked_runs.caller = cells.caller
    AND ranked_runs.org_id IS NOT DISTINCT FROM cells.org_id
    AND ranked_runs.route IS NOT DISTINCT FROM cells.route
    AND ranked_runs.run_rank = 1
LEFT JOIN early_retries
    ON early_retries.caller = cells.caller
    AND early_retries.org_id IS NOT DISTINCT FROM cells.org_id
    AND early_retries.route IS NOT DISTINCT FROM cells.route
ORDER BY cells.rate_limited DESC, cells.caller, cells.org_id NULLS LAST, cells.route NULLS LAST;
