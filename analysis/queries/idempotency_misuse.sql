-- title: Idempotency misuse
-- asks: Who uses Idempotency-Keys wrongly, or repeats sends without one?
-- codes: idempotency_in_progress, idempotency_key_reused
-- chart: stacked(caller, events, verdict)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_events: with fewer events, misuse is occasional
-- param min_share: or with a smaller part of the requests
-- param moment_s: requests that begin within so many seconds of the first one did not wait for its answer
-- param longest_wait_s: later than so after it they are taken for the retry of a client that gave up waiting
-- param poll_s: asking again so soon after "in progress" is polling
-- param min_estimated: with fewer faults, or fewer successes near them, nothing is estimated
-- columns:
--   caller: key_id, else key_hash, else client_ip
--   org_id: organisation of the events
--   verdict: constant key across bodies (an Idempotency-Key comes again with another body: idempotency_key_reused),
--     polling in progress (most refusals in progress come of asking again within poll_s, three times and more for one
--     key), concurrent duplicates (requests with one key begin without waiting for the answer to the first, and are
--     refused), retried without a key (POSTs without an Idempotency-Key come again after a platform fault or a time-out,
--     so that a message may be sent twice), occasional (fewer than min_events or less than min_share), keys not logged
--     (the gateway's log has no Idempotency-Keys, so that nobody can tell)
--   events: refusals; of retried without a key the retries
--   requests: requests of the caller to the methods and routes of the events; of retried without a key the faults
--   share: events / requests
--   idempotency_keys: distinct Idempotency-Keys of the events; NULL where there are none
--   polls: refusals in progress that came within poll_s of the one before, for the same key
--   duplicates: refusals in progress of requests that began without waiting
--   waited: other refusals in progress: the client waited, or gave up waiting
--   is_estimate: are events an estimate? Where the path names no object, nothing in the log tells a retry from another
--     send. Then retries are those that follow faults sooner than sends follow the successes of the same hour: the
--     intervals (Wilson, 3 sigma) of the parts that are followed within some seconds do not meet
--   within_s: of an estimate, the seconds in which faults are followed so much more often
--   first_seen: earliest event; of an estimate the earliest fault
--   last_seen: latest event
--   example_request_ids: the three latest
CREATE OR REPLACE MACRO idempotency_misuse(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_events := 3, min_share := 0.01, moment_s := 0.1, longest_wait_s := 2.0, poll_s := 1.0, min_estimated := 20
) AS TABLE
WITH refusals AS (
    SELECT caller, org_id, method, route, ts, request_id, code, idempotency_hash, gateway, latency_ms
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error
      AND code IN ('idempotency_in_progress', 'idempotency_key_reused')
),
telling_gateways AS (
    SELECT DISTINCT coalesce(gateway, '') AS gateway
    FROM requests
    WHERE kind = 'error'
      AND idempotency_hash IS NOT NULL
),
-- Everything that came under a key that was refused as in progress, the successes too.
keyed AS (
    SELECT
        asked.caller, asked.idempotency_hash, asked.request_id, asked.ts,
        coalesce(asked.code = 'idempotency_in_progress', false) AS is_refusal,
        start_us(asked.ts, asked.latency_ms) AS start_us,
        epoch_us(asked.ts) AS end_us
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS asked
    INNER JOIN (
        SELECT DISTINCT caller, idempotency_hash
        FROM refusals
        WHERE code = 'idempotency_in_progress'
    ) AS refused
        ON refused.idempotency_hash = asked.idempotency_hash
        AND refused.caller = asked.caller
),
placed AS (
    SELECT
        caller, idempotency_hash, request_id, ts, is_refusal, start_us,
        max(CASE WHEN NOT is_refusal THEN start_us END) OVER near_start AS first_start_us,
        max(CASE WHEN NOT is_refusal THEN end_us END) OVER near_start AS first_end_us,
        min(start_us) OVER near_start AS earliest_us,
        max(CASE WHEN is_refusal THEN end_us END) OVER earlier AS refused_end_us
    FROM keyed
    WINDOW
        near_start AS (
            PARTITION BY caller, idempotency_hash
            ORDER BY start_us
            RANGE BETWEEN UNBOUNDED PRECEDING AND 100000 FOLLOWING
        ),
        earlier AS (
            PARTITION BY caller, idempotency_hash
            ORDER BY start_us
            RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )
),
judged AS (
    SELECT
        caller, idempotency_hash, request_id, ts,
        CASE
            WHEN start_us - coalesce(first_start_us, earliest_us) <= microseconds(moment_s)
                AND start_us - earliest_us <= microseconds(longest_wait_s) THEN 'duplicate'
            WHEN start_us - refused_end_us < microseconds(poll_s) THEN 'poll'
            WHEN refused_end_us IS NULL
                AND start_us - first_start_us <= microseconds(longest_wait_s)
                AND first_end_us > start_us - clock_error_us() THEN 'duplicate'
            ELSE 'waited'
        END AS kind
    FROM placed
    WHERE is_refusal
),
keys_in_progress AS (
    SELECT
        caller, idempotency_hash,
        count(*) FILTER (WHERE kind = 'poll') AS polls,
        count(*) FILTER (WHERE kind = 'duplicate') AS duplicates,
        count(*) FILTER (WHERE kind = 'waited') AS waited
    FROM judged
    GROUP BY ALL
),
callers_in_progress AS (
    SELECT
        caller,
        sum(polls) AS polls,
        coalesce(sum(polls) FILTER (WHERE polls >= 3), 0) AS polls_in_a_row,
        sum(duplicates) AS duplicates,
        sum(waited) AS waited
    FROM keys_in_progress
    GROUP BY ALL
),
ranked_refusals AS (
    SELECT
        caller, org_id, method, route, ts, request_id, code, idempotency_hash,
        coalesce(gateway, '') IN (SELECT gateway FROM telling_gateways) AS is_telling,
        row_number() OVER (PARTITION BY caller, code ORDER BY ts DESC, request_id NULLS LAST) AS recency
    FROM refusals
),
refused AS (
    SELECT
        caller, code,
        max(org_id) AS org_id,
        count(*) AS events,
        bool_or(is_telling) AS is_telling,
        nullif(count(DISTINCT idempotency_hash), 0) AS idempotency_keys,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM ranked_refusals
    GROUP BY ALL
),
totals AS (
    SELECT places.caller, places.code, count(*) AS requests
    FROM (SELECT DISTINCT caller, code, method, route FROM refusals) AS places
    INNER JOIN requests_in_scope(since, until, for_org, for_key, for_route) AS asked
        ON asked.caller = places.caller
        AND asked.method IS NOT DISTINCT FROM places.method
        AND asked.route IS NOT DISTINCT FROM places.route
    GROUP BY ALL
),
-- POSTs without a key that met a platform fault or a timeout, where the log would have had the key.
faults AS (
    SELECT
        caller, method, intent_path_of(route, path) AS intent_path, names_object(route) AS is_known,
        ts, request_id, org_id, latency_ms
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error
      AND method = 'POST'
      AND idempotency_hash IS NULL
      AND caller IS NOT NULL
      AND (is_platform_fault(status, code) OR status = 499)
      AND coalesce(gateway, '') IN (SELECT gateway FROM telling_gateways)
),
faulty_paths AS (
    SELECT caller, method, intent_path, bool_or(is_known) AS is_known
    FROM faults
    GROUP BY ALL
    HAVING count(*) >= min_events
),
tried AS (
    SELECT
        asked.caller, asked.method, faulty_paths.intent_path, faulty_paths.is_known, asked.org_id, asked.ts,
        asked.request_id,
        asked.is_error AND (is_platform_fault(asked.status, asked.code) OR asked.status = 499) AS is_fault,
        NOT asked.is_error AS is_success,
        start_us(asked.ts, asked.latency_ms) AS start_us,
        epoch_us(asked.ts) AS end_us
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS asked
    INNER JOIN faulty_paths
        ON faulty_paths.caller = asked.caller
        AND faulty_paths.method = asked.method
        AND faulty_paths.intent_path IS NOT DISTINCT FROM intent_path_of(asked.route, asked.path)
    WHERE asked.idempotency_hash IS NULL
),
-- The end of every answer and the start of every request in one sequence, so that each end sees the next start.
moments AS (
    SELECT
        caller, method, intent_path, is_known, org_id, ts, request_id, is_fault, is_success,
        greatest(end_us, start_us + 1) AS moment_us,
        NULL AS begun_us,
        true AS is_end
    FROM tried
    UNION ALL
    SELECT
        caller, method, intent_path, is_known, org_id, ts, request_id, is_fault, is_success,
        start_us AS moment_us,
        start_us AS begun_us,
        false AS is_end
    FROM tried
),
followed AS (
    SELECT
        caller, method, intent_path, is_known, org_id, ts, request_id, is_fault, is_success, is_end,
        (
            min(begun_us) OVER (
                PARTITION BY caller, method, intent_path
                ORDER BY moment_us
                RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
            ) - moment_us
        ) / 1e6 AS next_s,
        count(*) FILTER (WHERE is_end AND is_fault) OVER (
            PARTITION BY caller, method, intent_path
            ORDER BY moment_us
            RANGE BETWEEN 1800000000 PRECEDING AND 1800000000 FOLLOWING
        ) AS faults_near
    FROM moments
),
paces AS (
    SELECT
        followed.caller, followed.method, followed.intent_path, followed.is_known, waits.wait_s,
        count(*) FILTER (WHERE followed.is_fault) AS faults,
        count(*) FILTER (WHERE followed.is_fault AND followed.next_s <= waits.wait_s) AS faults_followed,
        count(*) FILTER (WHERE followed.is_success AND followed.faults_near > 0) AS successes,
        count(*) FILTER (WHERE followed.is_success AND followed.faults_near > 0 AND followed.next_s <= waits.wait_s)
            AS successes_followed
    FROM followed
    CROSS JOIN (VALUES (0.1), (0.3), (1.0), (2.0), (4.0), (8.0), (16.0), (32.0), (64.0), (300.0)) AS waits(wait_s)
    WHERE followed.is_end
    GROUP BY ALL
),
surpluses AS (
    SELECT
        caller, method, intent_path, is_known, wait_s, faults, faults_followed,
        CASE
            WHEN is_known THEN faults_followed
            ELSE round(
                faults * (faults_followed / faults - successes_followed / nullif(successes, 0))
                / nullif(1 - successes_followed / nullif(successes, 0), 0)
            )
        END::BIGINT AS retries
    FROM paces
    WHERE faults > 0
      AND CASE
          WHEN is_known THEN wait_s = 300
          ELSE wait_s < 300
              AND faults >= min_estimated
              AND successes >= min_estimated
              AND wilson_low(faults_followed, faults, 3.0) > wilson_high(successes_followed, successes, 3.0)
      END
),
ranked_surpluses AS (
    SELECT
        caller, method, intent_path, is_known, wait_s, faults, retries,
        row_number() OVER (PARTITION BY caller, method, intent_path ORDER BY retries DESC, wait_s) AS surplus_rank
    FROM surpluses
    WHERE retries > 0
),
ranked_faults AS (
    SELECT
        faults.caller, faults.org_id, faults.ts, faults.request_id, ranked_surpluses.is_known,
        row_number() OVER (PARTITION BY faults.caller ORDER BY faults.ts DESC, faults.request_id NULLS LAST) AS recency
    FROM faults
    INNER JOIN ranked_surpluses
        ON ranked_surpluses.caller = faults.caller
        AND ranked_surpluses.method = faults.method
        AND ranked_surpluses.intent_path IS NOT DISTINCT FROM faults.intent_path
        AND ranked_surpluses.surplus_rank = 1
),
unsafe AS (
    SELECT caller, sum(retries) AS events, sum(faults) AS requests, NOT bool_and(is_known) AS is_estimate,
        max(CASE WHEN NOT is_known THEN wait_s END) AS within_s
    FROM ranked_surpluses
    WHERE surplus_rank = 1
    GROUP BY ALL
),
unsafe_faults AS (
    SELECT
        caller,
        max(org_id) AS org_id,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM ranked_faults
    GROUP BY ALL
),
answers AS (
    SELECT
        refused.caller,
        refused.org_id,
        CASE
            WHEN refused.code = 'idempotency_in_progress' AND NOT refused.is_telling THEN 'keys not logged'
            WHEN refused.events < min_events OR refused.events < min_share * totals.requests THEN 'occasional'
            WHEN refused.code = 'idempotency_key_reused' THEN 'constant key across bodies'
            WHEN 2 * callers_in_progress.polls_in_a_row >= refused.events THEN 'polling in progress'
            WHEN callers_in_progress.duplicates >= min_events THEN 'concurrent duplicates'
            ELSE 'occasional'
        END AS verdict,
        refused.events,
        totals.requests,
        refused.idempotency_keys,
        callers_in_progress.polls,
        callers_in_progress.duplicates,
        callers_in_progress.waited,
        false AS is_estimate,
        NULL AS within_s,
        refused.first_seen,
        refused.last_seen,
        refused.example_request_ids
    FROM refused
    LEFT JOIN totals
        ON totals.caller = refused.caller
        AND totals.code = refused.code
    LEFT JOIN callers_in_progress
        ON callers_in_progress.caller = refused.caller
        AND refused.code = 'idempotency_in_progress'
    UNION ALL
    SELECT
        unsafe.caller,
        unsafe_faults.org_id,
        CASE WHEN unsafe.events >= min_events THEN 'retried without a key' ELSE 'occasional' END AS verdict,
        unsafe.events,
        unsafe.requests,
        NULL AS idempotency_keys,
        NULL AS polls,
        NULL AS duplicates,
        NULL AS waited,
        unsafe.is_estimate,
        unsafe.within_s,
        unsafe_faults.first_seen,
        unsafe_faults.last_seen,
        unsafe_faults.example_request_ids
    FROM unsafe
    INNER JOIN unsafe_faults ON unsafe_faults.caller = unsafe.caller
)
SELECT
    caller,
    org_id,
    verdict,
    events::BIGINT AS events,
    requests::BIGINT AS requests,
    events / nullif(requests, 0) AS share,
    idempotency_keys::BIGINT AS idempotency_keys,
    polls::BIGINT AS polls,
    duplicates::BIGINT AS duplicates,
    waited::BIGINT AS waited,
    is_estimate,
    within_s::DOUBLE AS within_s,
    first_seen,
    last_seen,
    example_request_ids
FROM answers
ORDER BY events DESC, caller NULLS LAST, verdict, first_seen;
