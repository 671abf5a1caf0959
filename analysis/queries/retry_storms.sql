-- title: Retry storms
-- asks: When did clients multiply a fault of the platform by retrying, and which of them do not back off?
-- codes: internal_error
-- chart: bar(started_at, requests_per_second)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only culprits of this org_id
-- param for_key: only this culprit (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_requests: a storm has at least so many failed requests
-- param min_rate: and one caller sends at least so many of them a second
-- param tight_gap_s: a retry that begins within so many seconds of the failure does not back off
-- param open_amplification: slower retries are a storm when attempts / intents reaches this
-- param open_minutes: for so many minutes in a row
-- param severe_amplification: from this amplification on a storm is severe
-- columns:
--   incident: number of the storm, in order of its start; a storm has a row for each culprit, or one without
--   severity: severe or open
--   trigger_code: what most of its faults are: the code, else the gateway's reason, else the status
--   method: HTTP method
--   route: path with its ids folded
--   started_at: start of its first failed attempt
--   peaked_at: the second with most requests
--   ended_at: end of its last failed attempt
--   requests: requests of the method on the route from start to end, whatever their answer and caller
--   requests_per_second: requests / seconds, at least one second
--   peak_per_second: requests of the fullest second
--   amplification: requests / (requests - excess attempts of all callers); a lower bound, since what cannot be told
--     from a fresh request counts as one
--   culprit: the caller that retries without backing off; NULL where all back off
--   culprit_org_id: its organisation
--   culprit_requests: its requests in the storm
--   culprit_excess: those of them that only repeat what failed
--   culprit_share: its part of all excess attempts
--   culprit_tightness: the part of its failures that a request follows after one and the same pause below
--     tight_gap_s, beyond what chance and its usual pace explain; about 0 for a client that backs off, 1 for a tight
--     loop
--   intent_confidence: how its excess was told: high by idempotency keys, medium by paths that name one object, low
--     by time
--   example_request_ids: its first three failures
CREATE OR REPLACE MACRO retry_storms(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_requests := 50, min_rate := 10, tight_gap_s := 0.1,
    open_amplification := 1.3, open_minutes := 3, severe_amplification := 2.0
) AS TABLE
WITH faults AS (
    SELECT
        caller, method, route, idempotency_hash, retry_after_s,
        intent_path_of(route, path) AS intent_path,
        start_us(ts, latency_ms) AS start_us,
        epoch_us(ts) AS end_us,
        minute_of(ts) AS minute_number
    FROM requests_in_scope(since, until, NULL, NULL, for_route)
    WHERE is_error
      AND is_platform_fault(status, code)
),
-- First suspicion: one caller that fails on one route min_rate times a second, never a second apart.
fast_callers AS (
    SELECT DISTINCT caller, method, route
    FROM (
        SELECT caller, method, route, minute_number
        FROM faults
        GROUP BY ALL
        HAVING 2 * count(*) >= min_requests
    )
),
fault_gaps AS (
    SELECT
        faults.caller, faults.method, faults.route, faults.start_us, faults.end_us,
        CASE
            WHEN faults.end_us - lag(faults.end_us) OVER (
                PARTITION BY faults.caller, faults.method, faults.route
                ORDER BY faults.end_us
            ) <= 1000000 THEN 0
            ELSE 1
        END AS is_first
    FROM faults
    INNER JOIN fast_callers
        ON fast_callers.caller = faults.caller
        AND fast_callers.method IS NOT DISTINCT FROM faults.method
        AND fast_callers.route IS NOT DISTINCT FROM faults.route
),
fault_runs AS (
    SELECT
        caller, method, route, start_us, end_us,
        sum(is_first) OVER (PARTITION BY caller, method, route ORDER BY end_us) AS run_number
    FROM fault_gaps
),
bursts AS (
    SELECT caller, method, route, run_number, min(start_us) AS from_us, max(end_us) AS to_us
    FROM fault_runs
    GROUP BY ALL
    HAVING count(*) >= min_requests
       AND count(*) * 1e6 >= min_rate * (max(end_us) - min(end_us))
),
-- Second suspicion: minutes in which attempts with the idempotency key of a failed one amplify the load. Without a
-- key a client that polls an object would look like one that retries.
known_intents AS (
    SELECT
        caller, method, route, intent_path, idempotency_hash, minute_number, start_us, end_us,
        lag(end_us) OVER (
            PARTITION BY caller, method, intent_path, idempotency_hash
            ORDER BY start_us, end_us
        ) AS failed_us,
        lag(retry_after_s) OVER (
            PARTITION BY caller, method, intent_path, idempotency_hash
            ORDER BY start_us, end_us
        ) AS failed_retry_after_s
    FROM faults
    WHERE idempotency_hash IS NOT NULL
),
repeats AS (
    SELECT
        caller, method, route, intent_path, idempotency_hash, minute_number, start_us, end_us,
        start_us - failed_us AS gap_us
    FROM known_intents
    WHERE start_us - failed_us >= -clock_error_us()
      AND start_us - failed_us <= greatest(300, 4 * coalesce(failed_retry_after_s, 0)) * 1e6
),
growing_repeats AS (
    SELECT
        caller, method, route, end_us, gap_us,
        gap_us / nullif(lag(gap_us) OVER (
            PARTITION BY caller, method, intent_path, idempotency_hash
            ORDER BY start_us, end_us
        ), 0) AS growth
    FROM repeats
),
repeat_minutes AS (
    SELECT method, route, minute_number, count(*) AS repeated
    FROM repeats
    GROUP BY ALL
),
fault_minutes AS (
    SELECT method, route, minute_number, count(*) AS attempts, min(start_us) AS from_us, max(end_us) AS to_us
    FROM faults
    GROUP BY ALL
),
amplified_minutes AS (
    SELECT
        fault_minutes.method, fault_minutes.route, fault_minutes.attempts, fault_minutes.from_us, fault_minutes.to_us,
        fault_minutes.minute_number - row_number() OVER (
            PARTITION BY fault_minutes.method, fault_minutes.route
            ORDER BY fault_minutes.minute_number
        ) AS run_number
    FROM fault_minutes
    INNER JOIN repeat_minutes
        ON repeat_minutes.method IS NOT DISTINCT FROM fault_minutes.method
        AND repeat_minutes.route IS NOT DISTINCT FROM fault_minutes.route
        AND repeat_minutes.minute_number = fault_minutes.minute_number
    WHERE fault_minutes.attempts >= open_amplification * (fault_minutes.attempts - repeat_minutes.repeated)
),
suspicions AS (
    SELECT caller, method, route, from_us, to_us
    FROM bursts
    UNION ALL
    SELECT NULL AS caller, method, route, min(from_us) AS from_us, max(to_us) AS to_us
    FROM amplified_minutes
    GROUP BY method, route, run_number
    HAVING count(*) >= open_minutes
       AND sum(attempts) >= min_requests
),
-- Suspicions on one route that overlap, or lie less than a minute apart, are one episode.
suspicion_gaps AS (
    SELECT
        caller, method, route, from_us, to_us,
        CASE
            WHEN from_us <= 60000000 + max(to_us) OVER (
                PARTITION BY method, route
                ORDER BY from_us, to_us, caller NULLS LAST
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) THEN 0
            ELSE 1
        END AS is_first
    FROM suspicions
),
suspected AS (
    SELECT
        caller, method, route, from_us, to_us,
        sum(is_first) OVER (
            ORDER BY method NULLS LAST, route NULLS LAST, from_us, to_us, caller NULLS LAST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS episode
    FROM suspicion_gaps
),
episodes AS (
    SELECT episode, method, route, min(from_us) AS from_us, max(to_us) AS to_us
    FROM suspected
    GROUP BY ALL
),
episode_days AS (
    SELECT episodes.episode, episodes.method, episodes.route, episodes.from_us, episodes.to_us, days.day
    FROM episodes
    INNER JOIN (SELECT DISTINCT day FROM requests) AS days
        ON days.day >= make_timestamp(episodes.from_us - 120000000)::DATE
        AND days.day <= make_timestamp(episodes.to_us + 120000000)::DATE
),
-- All that was asked on the route, from two minutes before to two minutes after, to learn every caller's usual pace.
episode_requests AS (
    SELECT
        episode_days.episode, episode_days.from_us, episode_days.to_us,
        requests.caller, requests.org_id, requests.idempotency_hash, requests.request_id,
        intent_path_of(requests.route, requests.path) AS intent_path,
        intent_confidence_of(requests.idempotency_hash, requests.route) AS intent_confidence,
        coalesce(requests.code, requests.gateway_reason, requests.status::VARCHAR) AS answer,
        start_us(requests.ts, requests.latency_ms) AS start_us,
        epoch_us(requests.ts) AS end_us,
        NOT requests.is_error AS is_success,
        requests.is_error AND is_platform_fault(requests.status, requests.code) AS is_fault
    FROM requests
    INNER JOIN episode_days
        ON episode_days.day = requests.day
        AND episode_days.method IS NOT DISTINCT FROM requests.method
        AND episode_days.route IS NOT DISTINCT FROM requests.route
    WHERE epoch_us(requests.ts) >= episode_days.from_us - 120000000
      AND epoch_us(requests.ts) <= episode_days.to_us + 120000000
),
fast_requests AS (
    SELECT
        episode_requests.episode, episode_requests.caller, episode_requests.intent_path,
        episode_requests.idempotency_hash, episode_requests.start_us, episode_requests.end_us,
        CASE
            WHEN episode_requests.is_success THEN 'success'
            WHEN episode_requests.is_fault
                AND episode_requests.end_us BETWEEN episode_requests.from_us AND episode_requests.to_us THEN 'fault'
        END AS answer,
        row_number() OVER (
            ORDER BY episode_requests.end_us, episode_requests.start_us, episode_requests.request_id
        ) AS request_number
    FROM episode_requests
    INNER JOIN (SELECT DISTINCT episode, caller FROM suspected) AS suspect
        ON suspect.episode = episode_requests.episode
        AND suspect.caller = episode_requests.caller
),
-- How long after an answer the caller's next requests of that intent begin, in steps of two milliseconds up to the
-- tight gap.
echoes AS (
    SELECT
        answers.episode,
        answers.caller,
        answers.answer,
        (attempts.start_us - answers.end_us + clock_error_us()) // 2000 AS step,
        count(*) AS begun
    FROM (
        SELECT
            episode, caller, intent_path, idempotency_hash, end_us, answer, request_number,
            (end_us - clock_error_us()) // microseconds(tight_gap_s) + neighbours.later AS slot
        FROM fast_requests
        CROSS JOIN (VALUES (0), (1)) AS neighbours(later)
        WHERE answer IS NOT NULL
    ) AS answers
    INNER JOIN fast_requests AS attempts
        ON attempts.episode = answers.episode
        AND attempts.caller = answers.caller
        AND attempts.intent_path IS NOT DISTINCT FROM answers.intent_path
        AND attempts.idempotency_hash IS NOT DISTINCT FROM answers.idempotency_hash
        AND attempts.start_us // microseconds(tight_gap_s) = answers.slot
    WHERE attempts.request_number <> answers.request_number
      AND attempts.start_us >= answers.end_us - clock_error_us()
      AND attempts.start_us < answers.end_us - clock_error_us() + microseconds(tight_gap_s)
    GROUP BY ALL
),
-- How many of its requests had begun at five moments around each answer, from which follows how many began between two
-- of them. Frames of as many microseconds would do, were they not allowed to depend on a parameter in few engines.
edges AS (
    SELECT
        episode, caller, intent_path, idempotency_hash, start_us AS moment_us, NULL AS request_number, NULL AS edge
    FROM fast_requests
    UNION ALL
    SELECT
        episode, caller, intent_path, idempotency_hash,
        end_us + CASE offsets.edge
            WHEN 'around begins' THEN -2 * microseconds(tight_gap_s) - 1
            WHEN 'before begins' THEN -microseconds(tight_gap_s) - clock_error_us() - 1
            WHEN 'before ends' THEN -clock_error_us() - 1
            WHEN 'after ends' THEN microseconds(tight_gap_s) - clock_error_us() - 1
            WHEN 'around ends' THEN 2 * microseconds(tight_gap_s)
        END AS moment_us,
        request_number,
        offsets.edge
    FROM fast_requests
    CROSS JOIN (
        VALUES ('around begins'), ('before begins'), ('before ends'), ('after ends'), ('around ends')
    ) AS offsets(edge)
    WHERE answer IS NOT NULL
),
begun_by_edge AS (
    SELECT
        request_number,
        edge,
        count(*) FILTER (WHERE edge IS NULL) OVER (
            PARTITION BY episode, caller, intent_path, idempotency_hash
            ORDER BY moment_us
        ) AS begun
    FROM edges
),
begun_at_edges AS (
    SELECT
        request_number,
        max(begun) FILTER (WHERE edge = 'around begins') AS around_begins,
        max(begun) FILTER (WHERE edge = 'before begins') AS before_begins,
        max(begun) FILTER (WHERE edge = 'before ends') AS before_ends,
        max(begun) FILTER (WHERE edge = 'after ends') AS after_ends,
        max(begun) FILTER (WHERE edge = 'around ends') AS around_ends
    FROM begun_by_edge
    WHERE request_number IS NOT NULL
    GROUP BY ALL
),
surroundings AS (
    SELECT
        fast_requests.episode,
        fast_requests.caller,
        fast_requests.answer,
        begun.around_ends - begun.around_begins AS begun_around,
        begun.after_ends - begun.before_ends - CASE
            WHEN fast_requests.end_us - fast_requests.start_us <= clock_error_us() THEN 1
            ELSE 0
        END AS begun_after,
        begun.before_ends - begun.before_begins - CASE
            WHEN fast_requests.end_us - fast_requests.start_us > clock_error_us()
                AND fast_requests.end_us - fast_requests.start_us <= microseconds(tight_gap_s) + clock_error_us() THEN 1
            ELSE 0
        END AS begun_before
    FROM fast_requests
    INNER JOIN begun_at_edges AS begun ON begun.request_number = fast_requests.request_number
),
-- What chance puts into a step: as many as begin, on average, in a step of the time around, two tight gaps to each
-- side. And how many more begin after an answer than before it, the answered one aside: a volley of parallel requests
-- begins before.
paces AS (
    SELECT
        episode,
        caller,
        answer,
        count(*) AS answers,
        avg(begun_around) * 500 / microseconds(tight_gap_s) AS begun_by_chance,
        avg(begun_after - begun_before) AS more_after_than_before
    FROM surroundings
    GROUP BY ALL
),
running_echoes AS (
    SELECT
        episode, caller, answer, step, begun,
        sum(begun) OVER (PARTITION BY episode, caller, answer ORDER BY step) AS begun_so_far
    FROM echoes
),
-- A client that retries after a fixed pause puts one request for each failure into a few steps, a client that does
-- not puts none there beyond chance: the stretch of steps with the greatest surplus tells them apart, wherever the
-- pause lies.
stretches AS (
    SELECT
        first_steps.episode,
        first_steps.caller,
        first_steps.answer,
        paces.answers,
        paces.more_after_than_before,
        paces.answers * paces.begun_by_chance * (last_steps.step - first_steps.step + 1) AS expected,
        last_steps.begun_so_far - first_steps.begun_so_far + first_steps.begun
            - paces.answers * paces.begun_by_chance * (last_steps.step - first_steps.step + 1) AS surplus,
        row_number() OVER (
            PARTITION BY first_steps.episode, first_steps.caller, first_steps.answer
            ORDER BY
                last_steps.begun_so_far - first_steps.begun_so_far + first_steps.begun
                    - paces.answers * paces.begun_by_chance * (last_steps.step - first_steps.step + 1) DESC,
                first_steps.step,
                last_steps.step
        ) AS stretch_rank
    FROM running_echoes AS first_steps
    INNER JOIN running_echoes AS last_steps
        ON last_steps.episode = first_steps.episode
        AND last_steps.caller = first_steps.caller
        AND last_steps.answer = first_steps.answer
        AND last_steps.step >= first_steps.step
    INNER JOIN paces
        ON paces.episode = first_steps.episode
        AND paces.caller = first_steps.caller
        AND paces.answer = first_steps.answer
),
-- A client that goes on after a failure as it does after a success keeps its pace and does not retry: that surplus is
-- taken off. Whole seconds, or ends without starts, tell nothing about a tenth of a second.
tightness AS (
    SELECT
        after_fault.episode,
        after_fault.caller,
        after_fault.surplus,
        after_fault.expected,
        least(
            after_fault.surplus / after_fault.answers - CASE
                WHEN after_success.answers >= 10 THEN greatest(after_success.surplus / after_success.answers, 0)
                ELSE 0
            END,
            1 + after_fault.more_after_than_before
        ) AS tightness
    FROM stretches AS after_fault
    INNER JOIN (
        SELECT episode, caller
        FROM fast_requests
        GROUP BY ALL
        HAVING bool_or(end_us % 1000000 <> 0)
           AND bool_or(start_us <> end_us)
    ) AS fine_clocks
        ON fine_clocks.episode = after_fault.episode
        AND fine_clocks.caller = after_fault.caller
    LEFT JOIN stretches AS after_success
        ON after_success.episode = after_fault.episode
        AND after_success.caller = after_fault.caller
        AND after_success.answer = 'success'
        AND after_success.stretch_rank = 1
    WHERE after_fault.answer = 'fault'
      AND after_fault.stretch_rank = 1
),
known_repeaters AS (
    SELECT
        episodes.episode,
        growing_repeats.caller,
        count(*) AS repeated,
        quantile_cont(growing_repeats.gap_us, 0.5) / 1e6 AS median_gap_s,
        quantile_cont(growing_repeats.growth, 0.5) AS median_growth
    FROM growing_repeats
    INNER JOIN episodes
        ON episodes.method IS NOT DISTINCT FROM growing_repeats.method
        AND episodes.route IS NOT DISTINCT FROM growing_repeats.route
    WHERE growing_repeats.end_us BETWEEN episodes.from_us AND episodes.to_us
    GROUP BY ALL
),
caller_faults AS (
    SELECT episode, caller, count(*) AS faults
    FROM episode_requests
    WHERE is_fault
      AND end_us BETWEEN from_us AND to_us
    GROUP BY ALL
),
-- Who does not back off: half of its failures are answered by a retry at once, beyond what chance explains; or half
-- of them repeat an idempotency key at gaps that do not grow.
culprits AS (
    SELECT caller_faults.episode, caller_faults.caller
    FROM caller_faults
    LEFT JOIN tightness
        ON tightness.episode = caller_faults.episode
        AND tightness.caller = caller_faults.caller
    LEFT JOIN known_repeaters
        ON known_repeaters.episode = caller_faults.episode
        AND known_repeaters.caller = caller_faults.caller
    WHERE (tightness.tightness >= 0.5 AND tightness.surplus >= 4 * sqrt(tightness.expected))
       OR (
           2 * known_repeaters.repeated >= caller_faults.faults
           AND 5 * known_repeaters.repeated >= min_requests
           AND coalesce(known_repeaters.median_growth < 1.5, known_repeaters.median_gap_s < 1)
       )
),
storms AS (
    SELECT
        suspected.episode, suspected.method, suspected.route,
        min(suspected.from_us) AS from_us,
        max(suspected.to_us) AS to_us
    FROM suspected
    LEFT JOIN culprits
        ON culprits.episode = suspected.episode
        AND culprits.caller = suspected.caller
    WHERE suspected.caller IS NULL
       OR culprits.caller IS NOT NULL
    GROUP BY ALL
),
storm_requests AS (
    SELECT
        episode_requests.episode, episode_requests.caller, episode_requests.org_id, episode_requests.request_id,
        episode_requests.intent_confidence, episode_requests.answer, episode_requests.end_us, episode_requests.is_fault,
        row_number() OVER (
            PARTITION BY episode_requests.episode, episode_requests.caller, episode_requests.is_fault
            ORDER BY episode_requests.end_us, episode_requests.request_id
        ) AS turn
    FROM episode_requests
    INNER JOIN storms ON storms.episode = episode_requests.episode
    WHERE episode_requests.end_us BETWEEN storms.from_us AND storms.to_us
),
storm_callers AS (
    SELECT
        episode,
        caller,
        max(org_id) AS org_id,
        count(*) AS requests,
        count(*) FILTER (WHERE is_fault) AS faults,
        count(*) FILTER (WHERE is_fault AND intent_confidence = 'high') AS high_faults,
        count(*) FILTER (WHERE is_fault AND intent_confidence <> 'low') AS known_faults,
        list(request_id ORDER BY turn) FILTER (WHERE is_fault AND turn <= 3 AND request_id IS NOT NULL)
            AS example_request_ids
    FROM storm_requests
    GROUP BY ALL
),
storm_repeats AS (
    SELECT storms.episode, repeats.caller, count(*) AS repeated
    FROM repeats
    INNER JOIN storms
        ON storms.method IS NOT DISTINCT FROM repeats.method
        AND storms.route IS NOT DISTINCT FROM repeats.route
    WHERE repeats.end_us BETWEEN storms.from_us AND storms.to_us
    GROUP BY ALL
),
excesses AS (
    SELECT
        storm_callers.episode, storm_callers.caller, storm_callers.org_id, storm_callers.requests,
        storm_callers.example_request_ids,
        culprits.caller IS NOT NULL AS is_culprit,
        tightness.tightness,
        greatest(
            coalesce(storm_repeats.repeated, 0),
            CASE
                WHEN culprits.caller IS NOT NULL
                    THEN round(storm_callers.faults * least(greatest(coalesce(tightness.tightness, 0), 0), 1))
                ELSE 0
            END
        ) AS excess,
        CASE
            WHEN 2 * storm_callers.high_faults >= storm_callers.faults THEN 'high'
            WHEN 2 * storm_callers.known_faults >= storm_callers.faults THEN 'medium'
            ELSE 'low'
        END AS intent_confidence
    FROM storm_callers
    LEFT JOIN culprits
        ON culprits.episode = storm_callers.episode
        AND culprits.caller = storm_callers.caller
    LEFT JOIN tightness
        ON tightness.episode = storm_callers.episode
        AND tightness.caller = storm_callers.caller
    LEFT JOIN storm_repeats
        ON storm_repeats.episode = storm_callers.episode
        AND storm_repeats.caller = storm_callers.caller
),
storm_excesses AS (
    SELECT episode, sum(excess) AS excess
    FROM excesses
    GROUP BY ALL
),
storm_seconds AS (
    SELECT episode, end_us // 1000000 AS second_number, count(*) AS requests
    FROM storm_requests
    GROUP BY ALL
),
storm_peaks AS (
    SELECT
        episode,
        sum(requests) AS requests,
        max(requests) AS peak_per_second,
        max_by(second_number, struct_pack(requests := requests, sooner := -second_number)) AS peak_second
    FROM storm_seconds
    GROUP BY ALL
),
storm_answers AS (
    SELECT episode, answer, count(*) AS faults
    FROM storm_requests
    WHERE is_fault
    GROUP BY ALL
),
storm_triggers AS (
    SELECT episode, max_by(answer, struct_pack(faults := faults, answer := answer)) AS trigger_code
    FROM storm_answers
    GROUP BY ALL
),
incidents AS (
    SELECT
        storms.episode,
        row_number() OVER (ORDER BY storms.from_us, storms.episode) AS incident,
        storms.method,
        storms.route,
        storms.from_us,
        storms.to_us,
        storm_triggers.trigger_code,
        storm_peaks.requests,
        storm_peaks.peak_per_second,
        storm_peaks.peak_second,
        storm_excesses.excess,
        storm_peaks.requests / greatest(storm_peaks.requests - storm_excesses.excess, 1) AS amplification
    FROM storms
    INNER JOIN storm_triggers ON storm_triggers.episode = storms.episode
    INNER JOIN storm_peaks ON storm_peaks.episode = storms.episode
    INNER JOIN storm_excesses ON storm_excesses.episode = storms.episode
)
SELECT
    incidents.incident,
    CASE WHEN incidents.amplification >= severe_amplification THEN 'severe' ELSE 'open' END AS severity,
    incidents.trigger_code,
    incidents.method,
    incidents.route,
    make_timestamptz(incidents.from_us) AS started_at,
    make_timestamptz(incidents.peak_second * 1000000) AS peaked_at,
    make_timestamptz(incidents.to_us) AS ended_at,
    incidents.requests::BIGINT AS requests,
    incidents.requests / greatest((incidents.to_us - incidents.from_us) / 1e6, 1) AS requests_per_second,
    incidents.peak_per_second,
    incidents.amplification,
    named.caller AS culprit,
    named.org_id AS culprit_org_id,
    named.requests AS culprit_requests,
    named.excess::BIGINT AS culprit_excess,
    named.excess / nullif(incidents.excess, 0) AS culprit_share,
    named.tightness AS culprit_tightness,
    named.intent_confidence,
    named.example_request_ids
FROM incidents
LEFT JOIN excesses AS named
    ON named.episode = incidents.episode
    AND named.is_culprit
WHERE (for_org IS NULL OR named.org_id = for_org)
  AND (for_key IS NULL OR named.caller = for_key)
ORDER BY incidents.incident, named.excess DESC NULLS LAST, named.caller;
