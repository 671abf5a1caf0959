-- title: Retry discipline
-- asks: Which clients retry as they should, which ignore Retry-After, repeat what cannot succeed, or do not back off?
-- chart: bar(name, wasted_requests)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param per: key for a row for each caller, client for one for each client program and version
-- param min_chains: below so many failures to judge by there is not enough data
-- param min_share: a habit is what a client does after at least this part of the failures that it could show it on
-- param tolerance_s: a retry may come this much before its Retry-After has passed
-- columns:
--   name: the caller, or with per := 'client' the program and version that its User-Agent names first
--   org_id: organisation of the caller; NULL for a client program
--   client: program and version that its User-Agent names first
--   verdict: ignores Retry-After, futile repeats, tight loop, joined by + where it has several habits; well-behaved
--     where it has none, and at least min_chains times waited as it was told or retried a fault with growing or longer
--     pauses; does not retry; not enough data
--   grade: A from a score of 95 on, B from 85, C from 70, D from 50, else F; NULL without enough data
--   score: 100 * (1 - wasted_requests / judged), the part of the failures after which it did right, in per cent
--   judged: failures that showed something: told, futile, and platform faults that were retried
--   wasted_requests: retried_too_early + futile_repeats + hasty_retries
--   requests: requests of the caller in scope
--   retries: requests that try a failed one again: those known by Idempotency-Key, and those that the echo of its
--     failures shows
--   retry_share: retries / requests; a healthy client stays below 0.1
--   told: rate-limited failures with a Retry-After that were tried again, known by a key; where an echo shows retries
--     that came too early, also all those without a key
--   retried_too_early: those that were tried again more than tolerance_s before the wait was over
--   honoured_rate: 1 - retried_too_early / told
--   honoured_low: lower end of its 95 % interval (Wilson)
--   honoured_high: upper end
--   futile: failures with a code of which an unchanged retry cannot succeed, but for the platform's own, known by a key;
--     where an echo shows repeats, also all those without
--   futile_repeats: those that were tried again all the same
--   futile_rate: futile_repeats / futile
--   futile_low: lower end of its 95 % interval (Wilson)
--   futile_high: upper end
--   hasty_retries: second and later retries within a second of a platform fault, by a client whose pauses do not grow;
--     of an echo all, where more than 0.6 of the faults have one
--   backoff: by the median growth of its pauses in chains of three or more attempts: collapsing (below 0.5), fixed (0.9
--     to 1.1), exponential (1.5 and more), else irregular; immediate where there are no such chains, or they do not
--     grow, and the median of at least 20 pauses without a Retry-After is below a second; NULL where less is known
--   median_growth: that median, of at least five pairs of pauses
--   median_gap_s: median pause before a retry that was not told how long to wait, seconds
--   is_lockstep: are its pauses nearly the same (coefficient of variation below 0.05, at least 20 of them)?
--   chains: failed intents that were tried again, known by Idempotency-Key
--   longest_chain: most attempts, one after the other, in one of them
--   over_three: part of them with more than three
--   is_estimate: were retries told by the echo of its failures, since the log has no key to know them by? An echo is
--     counted where at least min_chains failures are followed, after one and the same pause, by more requests than
--     chance (Poisson, p < 1e-9) and its usual pace explain, see analysis/echo.py
--   example_request_ids: three requests that it should not have sent then, else three failures
--   sentence: the same in words, to be sent to the customer
CREATE OR REPLACE MACRO retry_discipline(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    per := 'key', min_chains := 20, min_share := 0.3, tolerance_s := 0.25
) AS TABLE
WITH failures AS (
    SELECT
        failed.caller, failed.org_id, failed.key_id, failed.method, failed.route, failed.request_id, failed.ts,
        intent_path_of(failed.route, failed.path) AS intent_path,
        failed.recipient_hash,
        intent_token_of(failed.code, failed.idempotency_hash, NULL::VARCHAR) AS intent_token,
        CASE
            WHEN is_rate_limited(failed.status, failed.code)
                THEN CASE WHEN failed.retry_after_s > tolerance_s THEN 'told' ELSE 'limited' END
            WHEN is_platform_fault(failed.status, failed.code) THEN 'fault'
            WHEN NOT catalogue.is_retryable THEN 'futile'
        END AS answered
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS failed
    LEFT JOIN catalogue ON catalogue.code = failed.code
    WHERE failed.is_error
      AND failed.caller IS NOT NULL
),
failed_callers AS (
    SELECT
        caller,
        max(key_id) AS key_id,
        max(org_id) AS org_id,
        count(*) AS failures,
        count(*) FILTER (WHERE answered = 'futile' AND intent_token IS NOT NULL) AS known_futile,
        count(*) FILTER (WHERE answered IN ('told', 'futile', 'fault') AND intent_token IS NULL) AS unknown
    FROM failures
    GROUP BY ALL
),
agents AS (
    SELECT caller, user_agent, count(*) AS seen
    FROM errors
    WHERE (since IS NULL OR (day >= since::TIMESTAMP::DATE AND ts >= utc_moment(since)))
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
    GROUP BY ALL
),
clients AS (
    SELECT
        caller,
        max_by(user_agent, struct_pack(seen := seen, user_agent := user_agent)) AS user_agent
    FROM agents
    WHERE user_agent IS NOT NULL
    GROUP BY ALL
),
tried AS (
    SELECT
        caller, method, intent_path, intent_token, chain, attempt, request_id, ts, gap_s, failed_code, failed_status,
        failed_retry_after_s,
        is_rate_limited(failed_status, failed_code) AND failed_retry_after_s > tolerance_s AS is_told,
        gap_s < failed_retry_after_s - tolerance_s AS is_early,
        is_platform_fault(failed_status, failed_code) AS is_after_fault,
        count(gap_s) OVER (
            PARTITION BY caller, method, intent_path, intent_token, chain
            ORDER BY attempt
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS retry_number,
        last_value(gap_s IGNORE NULLS) OVER (
            PARTITION BY caller, method, intent_path, intent_token, chain
            ORDER BY attempt
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS gap_before_s
    FROM attempts(since, until, for_org, for_key, for_route)
    -- Of high confidence are those with a key: the first condition is known before attempts are put in order.
    WHERE intent_token IS NOT NULL
      AND intent_confidence = 'high'
),
known AS (
    SELECT
        tried.caller,
        count(*) FILTER (WHERE tried.gap_s IS NOT NULL) AS retries,
        count(*) FILTER (WHERE tried.is_told) AS told,
        count(*) FILTER (WHERE tried.is_told AND tried.is_early) AS too_early,
        count(*) FILTER (
            WHERE tried.gap_s IS NOT NULL AND NOT catalogue.is_retryable AND NOT tried.is_after_fault
        ) AS futile_repeats,
        count(*) FILTER (WHERE tried.is_after_fault) AS fault_retries,
        count(*) FILTER (WHERE tried.is_after_fault AND tried.gap_s < 1) AS quick,
        count(*) FILTER (WHERE tried.is_after_fault AND tried.gap_s < 1 AND tried.retry_number > 1) AS hasty,
        count(*) FILTER (WHERE tried.gap_s IS NOT NULL AND tried.retry_number = 1) AS chains,
        count(*) FILTER (WHERE tried.gap_s IS NOT NULL AND tried.retry_number = 3) AS over_three,
        nullif(max(tried.retry_number), 0) + 1 AS longest_chain,
        quantile_cont(tried.gap_s / nullif(tried.gap_before_s, 0), 0.5) FILTER (
            WHERE tried.gap_before_s > 0 AND tried.failed_retry_after_s IS NULL
        ) AS median_growth,
        quantile_cont(tried.gap_s, 0.5) FILTER (WHERE tried.failed_retry_after_s IS NULL) AS median_gap_s,
        count(tried.gap_s) FILTER (WHERE tried.gap_before_s > 0 AND tried.failed_retry_after_s IS NULL) AS growths,
        count(tried.gap_s) FILTER (WHERE tried.failed_retry_after_s IS NULL) AS pauses,
        count(tried.gap_s) AS gaps,
        stddev_pop(tried.gap_s) / nullif(avg(tried.gap_s), 0) AS gap_variation
    FROM tried
    LEFT JOIN catalogue ON catalogue.code = tried.failed_code
    GROUP BY ALL
),
totals AS (
    SELECT asked.caller, sum(asked.requests)::BIGINT AS requests
    FROM request_counts(since, until, for_org, for_key, for_route) AS asked
    INNER JOIN failed_callers
        ON failed_callers.key_id IS NOT DISTINCT FROM asked.key_id
        AND failed_callers.caller = asked.caller
    GROUP BY ALL
),
-- Where nothing tells a retry from a fresh request, the judge looks for the echo of the failures: all starts and ends
-- of what was asked there. A recipient may be sent several messages: it tells apart, but does not make the same.
unknown_intents AS (
    SELECT failures.caller, failures.key_id, failures.method, failures.intent_path
    FROM failures
    INNER JOIN failed_callers ON failed_callers.caller = failures.caller
    WHERE failures.intent_token IS NULL
      AND failures.answered IN ('told', 'futile', 'fault')
      AND failed_callers.unknown >= min_chains
    GROUP BY ALL
),
unknown_requests AS (
    SELECT
        asked.caller, asked.method, unknown_intents.intent_path, asked.recipient_hash, asked.request_id, asked.code, asked.ts,
        start_us(asked.ts, asked.latency_ms) AS start_us,
        epoch_us(asked.ts) AS end_us,
        CASE WHEN is_rate_limited(asked.status, asked.code) THEN asked.retry_after_s END AS wait_s,
        CASE
            WHEN NOT asked.is_error THEN 'success'
            WHEN is_rate_limited(asked.status, asked.code)
                THEN CASE WHEN asked.retry_after_s > tolerance_s THEN 'told' ELSE 'limited' END
            WHEN is_platform_fault(asked.status, asked.code) THEN 'fault'
            WHEN NOT catalogue.is_retryable THEN 'futile'
            ELSE 'other'
        END AS answered,
        row_number() OVER (
            PARTITION BY asked.caller
            ORDER BY asked.ts DESC, asked.request_id NULLS LAST
        ) AS recency
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS asked
    INNER JOIN unknown_intents
        ON unknown_intents.key_id IS NOT DISTINCT FROM asked.key_id
        AND unknown_intents.caller = asked.caller
        AND unknown_intents.method IS NOT DISTINCT FROM asked.method
        AND unknown_intents.intent_path IS NOT DISTINCT FROM intent_path_of(asked.route, asked.path)
    LEFT JOIN catalogue ON catalogue.code = asked.code
    WHERE intent_token_of(asked.code, asked.idempotency_hash, NULL::VARCHAR) IS NULL
),
unknown AS (
    SELECT
        caller,
        list(struct_pack(
            intent := coalesce(method, '') || ' ' || coalesce(intent_path, '') || ' ' || coalesce(recipient_hash, ''),
            start_us := start_us, end_us := end_us,
            answered := answered, wait_s := wait_s, code := code, request_id := request_id
        )) AS asked
    FROM unknown_requests
    WHERE recency <= 20000
    GROUP BY ALL
),
wrongs AS (
    SELECT caller, request_id, row_number() OVER (PARTITION BY caller ORDER BY rank, ts DESC, request_id) AS place
    FROM (
        SELECT tried.caller, tried.request_id, tried.ts, 1 AS rank
        FROM tried
        LEFT JOIN catalogue ON catalogue.code = tried.failed_code
        WHERE (tried.is_told AND tried.is_early)
           OR (tried.gap_s IS NOT NULL AND NOT catalogue.is_retryable AND NOT tried.is_after_fault)
        UNION ALL
        SELECT caller, request_id, ts, 2 AS rank
        FROM failures
        WHERE answered IN ('told', 'futile', 'fault')
    )
    WHERE request_id IS NOT NULL
),
examples AS (
    SELECT caller, list(request_id ORDER BY place) AS request_ids
    FROM wrongs
    WHERE place <= 3
    GROUP BY ALL
)
SELECT
    failed_callers.caller,
    failed_callers.org_id,
    product_of(clients.user_agent) || coalesce(' ' || product_version_of(clients.user_agent), '') AS client,
    totals.requests,
    failed_callers.failures,
    failed_callers.known_futile,
    coalesce(known.retries, 0) AS retries,
    coalesce(known.told, 0) AS told,
    coalesce(known.too_early, 0) AS too_early,
    coalesce(known.futile_repeats, 0) AS futile_repeats,
    coalesce(known.fault_retries, 0) AS fault_retries,
    coalesce(known.quick, 0) AS quick,
    coalesce(known.hasty, 0) AS hasty,
    coalesce(known.chains, 0) AS chains,
    coalesce(known.over_three, 0) AS over_three,
    known.longest_chain,
    known.median_growth,
    known.median_gap_s,
    coalesce(known.growths, 0) AS growths,
    coalesce(known.pauses, 0) AS pauses,
    coalesce(known.gaps, 0) AS gaps,
    known.gap_variation,
    unknown.asked,
    examples.request_ids
FROM failed_callers
INNER JOIN totals ON totals.caller = failed_callers.caller
LEFT JOIN clients ON clients.caller = failed_callers.caller
LEFT JOIN known ON known.caller = failed_callers.caller
LEFT JOIN unknown ON unknown.caller = failed_callers.caller
LEFT JOIN examples ON examples.caller = failed_callers.caller
ORDER BY failed_callers.caller;
