-- What makes two requests attempts at the same thing, besides their caller, method and path: the Idempotency-Key or,
-- where the log has none, the recipient that a refusal names. A key that the API refuses because it came with another
-- body names no thing.
CREATE OR REPLACE MACRO intent_token_of(code, idempotency_hash, recipient_hash) AS CASE
    WHEN coalesce(code = 'idempotency_key_reused', false) THEN recipient_hash
    ELSE coalesce(idempotency_hash, recipient_hash)
END;

-- The longest pause, in seconds, after which a request is still the next attempt of what failed before it.
CREATE OR REPLACE MACRO longest_gap_s(retry_after_s) AS greatest(300, 4 * coalesce(retry_after_s, 0));

-- The attempts at whatever failed in [since, until), a row each, successes too. An intent is (caller, method,
-- intent_path, intent_token). A chain is a series of its attempts of which the first that ran at a time failed, and the
-- next began after all had ended, no later than longest_gap_s(). What simply succeeded is in none. Callers that the log
-- does not name are left out, as nobody knows who comes back.
--   chain: number of the chain within its intent
--   attempt: place in the chain, from 1; chain_attempts: how many there are
--   start_us, end_us: microseconds since 1970
--   gap_s: of a retry, seconds from the end of what it retries to its start; NULL for a chain's first attempt, and for
--     one that ran beside another
--   failed_code, failed_status, failed_retry_after_s: what that was answered
--   intent_confidence: how surely the attempts want the same thing: high by Idempotency-Keys, medium by paths that name
--     one object or by recipients, low where any object is sent to the same path: there a chain may be a series of
--     different sends
CREATE OR REPLACE MACRO attempts(since, until, for_org, for_key, for_route) AS TABLE
WITH failures AS (
    SELECT
        caller, org_id, method, route, request_id, ts, status, code, gateway_reason, retry_after_s, latency_ms,
        intent_path_of(route, path) AS intent_path,
        intent_token_of(code, idempotency_hash, recipient_hash) AS intent_token,
        idempotency_hash,
        is_error
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error
      AND caller IS NOT NULL
),
failed_intents AS (
    SELECT DISTINCT caller, method, route, intent_path, intent_token
    FROM failures
),
-- Of the successes, which are many, the path, the widest column of all, is read only where it tells objects apart.
successes AS (
    SELECT
        answered.caller, answered.org_id, answered.method, answered.route, answered.request_id, answered.ts,
        answered.status, answered.code, answered.gateway_reason, answered.retry_after_s, answered.latency_ms,
        answered.path AS intent_path,
        answered.idempotency_hash AS intent_token,
        answered.idempotency_hash,
        answered.is_error
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS answered
    INNER JOIN failed_intents
        ON failed_intents.caller = answered.caller
        AND failed_intents.method IS NOT DISTINCT FROM answered.method
        AND failed_intents.intent_path = answered.path
        AND failed_intents.intent_token IS NOT DISTINCT FROM answered.idempotency_hash
    WHERE NOT answered.is_error
      AND names_object(answered.route)
    UNION ALL
    SELECT
        answered.caller, answered.org_id, answered.method, answered.route, answered.request_id, answered.ts,
        answered.status, answered.code, answered.gateway_reason, answered.retry_after_s, answered.latency_ms,
        answered.route AS intent_path,
        answered.idempotency_hash AS intent_token,
        answered.idempotency_hash,
        answered.is_error
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS answered
    INNER JOIN failed_intents
        ON failed_intents.caller = answered.caller
        AND failed_intents.method IS NOT DISTINCT FROM answered.method
        AND failed_intents.intent_path IS NOT DISTINCT FROM answered.route
        AND failed_intents.intent_token IS NOT DISTINCT FROM answered.idempotency_hash
    WHERE NOT answered.is_error
      AND NOT names_object(answered.route)
),
tried AS (
    SELECT
        caller, org_id, method, route, intent_path, intent_token, idempotency_hash, request_id, ts, status, code,
        gateway_reason, retry_after_s, is_error,
        start_us(ts, latency_ms) AS start_us,
        epoch_us(ts) AS end_us
    FROM failures
    UNION ALL
    SELECT
        caller, org_id, method, route, intent_path, intent_token, idempotency_hash, request_id, ts, status, code,
        gateway_reason, retry_after_s, is_error,
        start_us(ts, latency_ms) AS start_us,
        epoch_us(ts) AS end_us
    FROM successes
),
in_order AS (
    SELECT
        caller, org_id, method, route, intent_path, intent_token, idempotency_hash, request_id, ts, status, code,
        gateway_reason, retry_after_s, is_error, start_us, end_us,
        row_number() OVER (
            PARTITION BY caller, method, intent_path, intent_token
            ORDER BY start_us, end_us, request_id NULLS LAST
        ) AS try_number,
        max(end_us) OVER (
            PARTITION BY caller, method, intent_path, intent_token
            ORDER BY start_us, end_us, request_id NULLS LAST
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS all_ended_us
    FROM tried
),
-- Attempts that overlap are concurrent: only one that began when all before it had ended can be a retry, and it is one
-- of what the first of those that ran together was answered.
with_leaders AS (
    SELECT
        caller, org_id, method, route, intent_path, intent_token, idempotency_hash, request_id, ts, status, code,
        gateway_reason, retry_after_s, is_error, start_us, end_us, try_number,
        coalesce(start_us + clock_error_us() >= all_ended_us, true) AS is_leader,
        last_value(
            CASE WHEN coalesce(start_us + clock_error_us() >= all_ended_us, true) THEN struct_pack(
                ended_us := end_us, is_error := is_error, code := code, status := status, retry_after_s := retry_after_s
            ) END IGNORE NULLS
        ) OVER (
            PARTITION BY caller, method, intent_path, intent_token
            ORDER BY try_number
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS leader
    FROM in_order
),
with_retries AS (
    SELECT
        caller, org_id, method, route, intent_path, intent_token, idempotency_hash, request_id, ts, status, code,
        gateway_reason, retry_after_s, is_error, start_us, end_us, try_number, is_leader, leader,
        coalesce(
            is_leader
            AND leader.is_error
            AND start_us - leader.ended_us <= longest_gap_s(leader.retry_after_s) * 1e6,
            false
        ) AS is_retry
    FROM with_leaders
),
in_chains AS (
    SELECT
        caller, org_id, method, route, intent_path, intent_token, idempotency_hash, request_id, ts, status, code,
        gateway_reason, retry_after_s, is_error, start_us, end_us, try_number, leader, is_retry,
        sum(CASE WHEN is_leader AND NOT is_retry THEN 1 ELSE 0 END) OVER (
            PARTITION BY caller, method, intent_path, intent_token
            ORDER BY try_number
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS chain
    FROM with_retries
),
numbered AS (
    SELECT
        caller, org_id, method, route, intent_path, intent_token, idempotency_hash, request_id, ts, status, code,
        gateway_reason, retry_after_s, is_error, start_us, end_us, leader, is_retry, chain,
        row_number() OVER (
            PARTITION BY caller, method, intent_path, intent_token, chain
            ORDER BY try_number
        ) AS attempt,
        count(*) OVER (PARTITION BY caller, method, intent_path, intent_token, chain) AS chain_attempts,
        bool_or(is_error) OVER (PARTITION BY caller, method, intent_path, intent_token, chain) AS has_failed
    FROM in_chains
)
SELECT
    caller,
    org_id,
    method,
    route,
    intent_path,
    intent_token,
    CASE
        WHEN intent_token IS NOT NULL AND intent_token = idempotency_hash THEN 'high'
        WHEN intent_token IS NOT NULL OR names_object(route) THEN 'medium'
        ELSE 'low'
    END AS intent_confidence,
    chain::BIGINT AS chain,
    attempt,
    chain_attempts,
    request_id,
    ts,
    start_us,
    end_us,
    status,
    code,
    gateway_reason,
    is_error,
    retry_after_s,
    CASE WHEN is_retry THEN (start_us - leader.ended_us) / 1e6 END AS gap_s,
    CASE WHEN is_retry THEN leader.code END AS failed_code,
    CASE WHEN is_retry THEN leader.status END AS failed_status,
    CASE WHEN is_retry THEN leader.retry_after_s END AS failed_retry_after_s
FROM numbered
WHERE has_failed;

-- The chains of attempts(), a row each.
--   attempts: how many requests; failures: those of them that failed
--   started_at, ended_at: start of the first attempt, end of the last
--   first_code, first_status, last_code, last_status: what they were answered
--   is_recovered: did one of the attempts succeed?
--   request_ids: of its first three attempts
CREATE OR REPLACE MACRO chains(since, until, for_org, for_key, for_route) AS TABLE
SELECT
    caller,
    max(org_id) AS org_id,
    method,
    max(route) AS route,
    intent_path,
    intent_token,
    max(intent_confidence) AS intent_confidence,
    chain,
    count(*) AS attempts,
    count(*) FILTER (WHERE is_error) AS failures,
    make_timestamptz(min(start_us)) AS started_at,
    make_timestamptz(max(end_us)) AS ended_at,
    max(code) FILTER (WHERE attempt = 1) AS first_code,
    max(status) FILTER (WHERE attempt = 1) AS first_status,
    max(code) FILTER (WHERE attempt = chain_attempts) AS last_code,
    max(status) FILTER (WHERE attempt = chain_attempts) AS last_status,
    bool_or(NOT is_error) AS is_recovered,
    list(request_id ORDER BY attempt) FILTER (WHERE attempt <= 3 AND request_id IS NOT NULL) AS request_ids
FROM attempts(since, until, for_org, for_key, for_route)
GROUP BY caller, method, intent_path, intent_token, chain;
