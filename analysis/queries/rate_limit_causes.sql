-- title: Causes of rate limiting
-- asks: Why did each caller run into its rate limit: a burst, steady load, a schedule, its own retries or a sibling key?
-- codes: rate_limited
-- chart: stacked(started_at, rate_limited, cause)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only refusals on this route
-- param max_gap_s: refusals of one caller that begin no more than so many seconds apart are one run
-- param burst_s: a run that is shorter is a burst
-- param min_share: a cause must explain at least this part of the refusals
-- param min_periods: a schedule must show in so many different minutes or hours
-- param min_echo: retries without a key are counted, as an estimate, in runs of at least so many refusals
-- columns:
--   caller: key_id, else key_hash, else client_ip
--   org_id: its organisation
--   cause: scheduled (min_share of the caller's refusals, or of the starts of its runs, fall into the same two seconds of
--     the hour, in min_periods of them; or of its refusals into the same two of the minute, and of what it asked from
--     ten minutes before a run until it was told to wait), else self-inflicted (min_share of the refused requests are
--     retries), else noisy sibling (another key of the organisation sent 80 % of its requests meanwhile, ten times as
--     many as this one, and was refused as well), else burst (shorter than burst_s), else sustained
--   started_at: start of the first refused request
--   ended_at: start of the last
--   duration_s: seconds between them
--   rate_limited: requests refused with 429 or the code rate_limited
--   requests: requests of the caller from start to end of the run, whatever their answer
--   peak_per_second: most refusals that began in one second of the clock
--   retries: refused requests that tried a failed one again: those known by Idempotency-Key, and in runs with ten other
--     answers to compare with those that the echo of the refusals shows
--   retry_share: retries / rate_limited
--   is_estimate: were they told by the echo of the refusals, for want of a key?
--   schedule: for a scheduled run when in the minute or hour, such as '00 s of every minute' or '00:00 of every hour'
--   schedule_share: part of the caller's refusals, or of its runs' starts, at that time
--   sibling_key: key of the organisation with most requests meanwhile, other than this one
--   sibling_share: its part of the organisation's requests meanwhile
--   routes: distinct routes refused
--   route: the one most refused
--   example_request_ids: the first three refusals
CREATE OR REPLACE MACRO rate_limit_causes(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    max_gap_s := 60, burst_s := 10, min_share := 0.5, min_periods := 3, min_echo := 20
) AS TABLE
WITH tried AS (
    SELECT
        caller, org_id, method, route, request_id, status, code, start_us, end_us, retry_after_s, gap_s,
        intent_path, intent_token, intent_confidence, is_error
    FROM attempts(since, until, for_org, for_key, for_route)
),
refusals AS (
    SELECT
        caller, org_id, route, request_id, start_us, retry_after_s,
        intent_confidence = 'high' AS is_known,
        gap_s IS NOT NULL AND intent_confidence = 'high' AS is_retry
    FROM tried
    WHERE is_error
      AND is_rate_limited(status, code)
),
gaps AS (
    SELECT
        caller, org_id, route, request_id, start_us, retry_after_s, is_known, is_retry,
        CASE
            WHEN start_us - lag(start_us) OVER (
                PARTITION BY caller
                ORDER BY start_us, request_id NULLS LAST
            ) <= max_gap_s * 1e6 THEN 0
            ELSE 1
        END AS is_first
    FROM refusals
),
in_runs AS (
    SELECT
        caller, org_id, route, request_id, start_us, retry_after_s, is_known, is_retry,
        sum(is_first) OVER (
            PARTITION BY caller
            ORDER BY start_us, request_id NULLS LAST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS run
    FROM gaps
),
placed AS (
    SELECT
        caller, org_id, route, request_id, start_us, retry_after_s, is_known, is_retry, run,
        row_number() OVER (PARTITION BY caller, run ORDER BY start_us, request_id NULLS LAST) AS place,
        count(*) OVER (PARTITION BY caller, run, start_us // 1000000) AS in_second,
        count(*) OVER (PARTITION BY caller, run, route) AS on_route
    FROM in_runs
),
runs_of_refusals AS (
    SELECT
        caller,
        run,
        max(org_id) AS org_id,
        min(start_us) AS from_us,
        max(start_us) AS to_us,
        min(start_us) FILTER (WHERE retry_after_s > 0) AS told_us,
        count(*) AS refused,
        count(*) FILTER (WHERE is_known) AS known,
        count(*) FILTER (WHERE is_retry) AS retries,
        max(in_second) AS peak_per_second,
        count(DISTINCT route) AS routes,
        max_by(route, struct_pack(on_route := on_route, route := route)) AS route,
        list(request_id ORDER BY place) FILTER (WHERE place <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM placed
    GROUP BY ALL
),
-- A schedule is looked for in the moments of all refusals, and in those at which runs begin: a long burst has many of
-- the former behind its first two seconds. Each second counts with the one after it.
beats AS (
    SELECT caller, 'refusals' AS counted, start_us // 1000000 AS second_number
    FROM placed
    UNION ALL
    SELECT caller, 'runs' AS counted, from_us // 1000000 AS second_number
    FROM runs_of_refusals
),
slots AS (
    SELECT
        beats.caller, beats.counted, periods.period_s, beats.second_number // periods.period_s AS period,
        (beats.second_number - shifts.shift + periods.period_s) % periods.period_s AS slot
    FROM beats
    CROSS JOIN (VALUES (60), (3600)) AS periods(period_s)
    CROSS JOIN (VALUES (0), (1)) AS shifts(shift)
),
slot_shares AS (
    SELECT
        slots.caller, slots.period_s, slots.slot, slots.counted,
        count(*) / max(totals.beats) AS share,
        count(DISTINCT slots.period) AS periods
    FROM slots
    INNER JOIN (SELECT caller, counted, count(*) AS beats FROM beats GROUP BY ALL) AS totals
        ON totals.caller = slots.caller
        AND totals.counted = slots.counted
    GROUP BY ALL
),
candidates AS (
    SELECT caller, period_s, slot, counted, share
    FROM slot_shares
    WHERE periods >= min_periods
      AND share >= min_share
      AND (counted = 'refusals' OR period_s = 3600)
),
run_days AS (
    SELECT runs_of_refusals.caller, runs_of_refusals.run, runs_of_refusals.org_id, runs_of_refusals.from_us,
        runs_of_refusals.to_us, days.day
    FROM runs_of_refusals
    INNER JOIN (SELECT DISTINCT day FROM request_counts(since, until, NULL, NULL, NULL)) AS days
        ON days.day >= make_timestamp(runs_of_refusals.from_us)::DATE
        AND days.day <= make_timestamp(runs_of_refusals.to_us + 60000000)::DATE
),
-- A client that is told to wait until the minute is over comes back, and is refused again, when the next one begins:
-- what is scheduled by the minute was so in the ten minutes before anybody told it.
quiet_before AS (
    SELECT caller, run, from_us, coalesce(told_us, to_us) AS to_us
    FROM (
        SELECT
            caller, run, from_us, to_us, told_us,
            lag(to_us) OVER (PARTITION BY caller ORDER BY from_us) AS last_us
        FROM runs_of_refusals
    )
    WHERE last_us IS NULL
       OR from_us - last_us > 600000000
),
candidate_days AS (
    SELECT
        candidates.caller, candidates.slot, quiet_before.run, quiet_before.from_us - 600000000 AS from_us,
        quiet_before.to_us, days.day
    FROM candidates
    INNER JOIN quiet_before ON quiet_before.caller = candidates.caller
    INNER JOIN (SELECT DISTINCT day FROM request_counts(since, until, NULL, NULL, NULL)) AS days
        ON days.day >= make_timestamp(quiet_before.from_us - 600000000)::DATE
        AND days.day <= make_timestamp(quiet_before.to_us + 60000000)::DATE
    WHERE candidates.period_s = 60
      AND candidates.counted = 'refusals'
),
candidate_beats AS (
    SELECT DISTINCT
        candidate_days.caller, candidate_days.slot, asked.request_id,
        start_us(asked.ts, asked.latency_ms) // 1000000 AS second_number
    FROM requests_in_scope(since, until, NULL, NULL, NULL) AS asked
    INNER JOIN candidate_days
        ON candidate_days.day = asked.day
        AND candidate_days.caller = asked.caller
    WHERE start_us(asked.ts, asked.latency_ms) BETWEEN candidate_days.from_us AND candidate_days.to_us
),
candidate_requests AS (
    SELECT
        caller,
        slot,
        count(*) FILTER (WHERE (second_number - slot + 60) % 60 <= 1) / count(*) AS request_share,
        count(DISTINCT second_number // 60) FILTER (WHERE (second_number - slot + 60) % 60 <= 1) AS minutes
    FROM candidate_beats
    GROUP BY ALL
),
-- What happens every hour also happens at a second of the minute: the longer period says more.
ranked_schedules AS (
    SELECT
        candidates.caller, candidates.period_s, candidates.slot, candidates.share,
        row_number() OVER (
            PARTITION BY candidates.caller
            ORDER BY candidates.period_s DESC, candidates.share DESC, candidates.slot, candidates.counted
        ) AS schedule_rank
    FROM candidates
    LEFT JOIN candidate_requests
        ON candidate_requests.caller = candidates.caller
        AND candidate_requests.slot = candidates.slot
    WHERE candidates.period_s = 3600
       OR (candidate_requests.request_share >= min_share AND candidate_requests.minutes >= min_periods)
),
schedules AS (
    SELECT caller, period_s, slot, share
    FROM ranked_schedules
    WHERE schedule_rank = 1
),
-- What the caller, or another key of its organisation, asked meanwhile.
meanwhile AS (
    SELECT
        run_days.caller,
        run_days.run,
        asked.caller AS asked_by,
        count(*) AS requests,
        count(*) FILTER (WHERE asked.is_error AND is_rate_limited(asked.status, asked.code)) AS refused
    FROM requests_in_scope(since, until, NULL, NULL, NULL) AS asked
    INNER JOIN run_days
        ON run_days.day = asked.day
        AND run_days.org_id = asked.org_id
    WHERE start_us(asked.ts, asked.latency_ms) BETWEEN run_days.from_us AND run_days.to_us
    GROUP BY ALL
    UNION ALL
    SELECT
        run_days.caller,
        run_days.run,
        asked.caller AS asked_by,
        count(*) AS requests,
        count(*) FILTER (WHERE asked.is_error AND is_rate_limited(asked.status, asked.code)) AS refused
    FROM requests_in_scope(since, until, NULL, NULL, NULL) AS asked
    INNER JOIN run_days
        ON run_days.day = asked.day
        AND run_days.caller = asked.caller
    WHERE run_days.org_id IS NULL
      AND start_us(asked.ts, asked.latency_ms) BETWEEN run_days.from_us AND run_days.to_us
    GROUP BY ALL
),
loads AS (
    SELECT
        caller, run, asked_by, requests, refused,
        sum(requests) OVER (PARTITION BY caller, run) AS org_requests,
        row_number() OVER (PARTITION BY caller, run, asked_by = caller ORDER BY requests DESC, asked_by) AS load_rank
    FROM meanwhile
    WHERE asked_by IS NOT NULL
),
own_loads AS (
    SELECT caller, run, requests
    FROM loads
    WHERE asked_by = caller
),
siblings AS (
    SELECT caller, run, asked_by AS sibling_key, requests, refused, requests / org_requests AS sibling_share
    FROM loads
    WHERE asked_by <> caller
      AND load_rank = 1
),
-- Where no key tells retries: what was asked on the intents of the refusals, for the judge to hear their echo in.
unknown AS (
    SELECT
        runs_of_refusals.caller,
        runs_of_refusals.run,
        list(struct_pack(
            intent := coalesce(tried.method, '') || ' ' || coalesce(tried.intent_path, ''),
            start_us := tried.start_us, end_us := tried.end_us,
            answered := CASE WHEN is_rate_limited(tried.status, tried.code) THEN 'refused' ELSE 'other' END
        )) AS asked
    FROM runs_of_refusals
    INNER JOIN tried ON tried.caller = runs_of_refusals.caller
    WHERE tried.intent_confidence <> 'high'
      AND tried.start_us BETWEEN runs_of_refusals.from_us AND runs_of_refusals.to_us
      AND runs_of_refusals.refused - runs_of_refusals.known >= min_echo
    GROUP BY ALL
)
SELECT
    runs_of_refusals.caller,
    runs_of_refusals.org_id,
    make_timestamptz(runs_of_refusals.from_us) AS started_at,
    make_timestamptz(runs_of_refusals.to_us) AS ended_at,
    (runs_of_refusals.to_us - runs_of_refusals.from_us) / 1e6 AS duration_s,
    runs_of_refusals.refused AS rate_limited,
    own_loads.requests,
    runs_of_refusals.peak_per_second,
    runs_of_refusals.retries,
    schedules.period_s,
    schedules.slot,
    schedules.share AS schedule_share,
    siblings.sibling_key,
    siblings.sibling_share,
    siblings.requests AS sibling_requests,
    siblings.refused AS sibling_refused,
    runs_of_refusals.routes,
    runs_of_refusals.route,
    runs_of_refusals.example_request_ids,
    unknown.asked
FROM runs_of_refusals
LEFT JOIN own_loads
    ON own_loads.caller = runs_of_refusals.caller
    AND own_loads.run = runs_of_refusals.run
LEFT JOIN siblings
    ON siblings.caller = runs_of_refusals.caller
    AND siblings.run = runs_of_refusals.run
LEFT JOIN schedules ON schedules.caller = runs_of_refusals.caller
LEFT JOIN unknown
    ON unknown.caller = runs_of_refusals.caller
    AND unknown.run = runs_of_refusals.run
ORDER BY runs_of_refusals.refused DESC, runs_of_refusals.caller, runs_of_refusals.from_us;
