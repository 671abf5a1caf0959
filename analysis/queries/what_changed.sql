-- title: What changed
-- asks: Which errors are new, back, many more, far fewer or gone, compared with yesterday and the same weekday last week?
-- chart: none
-- param since: first moment of the period (UTC date or timestamp); when NULL the start of the latest UTC day that has
--     requests beyond its first hour
-- param until: last moment, exclusive (UTC date or timestamp); the end of that day when NULL, with a since the
--     data-through time
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_errors: a cell is tested from so many errors in the period, or in the mean of its baselines
-- param min_factor: its errors must have changed by this factor against the baselines, by its root against each of them
-- param max_q: so great a part of the sentences may be false alarms (Benjamini-Hochberg)
-- param min_explained: a narrower cell is named instead where it explains this part of the change
-- param max_sentences: so many at most
-- columns:
--   rank: 1 is the surest change
--   kind: NEW (in no baseline, nor in the 14 days before), RETURNED (in no baseline, but in the 14 days before), UP,
--     DOWN, GONE (none in the period), or NOT ENOUGH DATA where there is no baseline: one row that accuses nobody
--   code: the code; else why the gateway answered itself (gateway_reason); else (no code)
--   level: how narrow the cell is, such as code, or code + route + org + key; what it does not name it holds all of
--   method: HTTP method, with route
--   route: path with its ids folded
--   org_id: organisation
--   key: key_id, else key_hash, else client_ip
--   errors: errors of the cell in the period
--   requests: requests of the cell's route, organisation and key in the period, whatever their answer
--   rate: errors / requests
--   previous_errors: errors of the cell one day before, up to the same time of day; NULL where the data begin later. A
--     period of more than a day is compared with those one and two weeks before, of three weeks with those three and
--     six weeks before
--   previous_requests: requests then
--   previous_rate: previous_errors / previous_requests
--   week_before_errors: errors of the cell on the same weekday a week before, up to the same time of day
--   week_before_requests: requests then
--   week_before_rate: week_before_errors / week_before_requests
--   unit: what the test counts: errors, or bursts where they are surer: all of one caller and route in ten minutes are one
--   ratio: units in the period / in the mean of the baselines; per request of the whole API, or per request of the cell
--     that did not fail so, where that is closer to 1
--   ratio_low: lower end of its exact 95 % interval (Clopper-Pearson, of the period's share of all units)
--   ratio_high: upper end; infinite where the baselines have none
--   variance_factor: how much more the units vary than independent ones: by the errors that an error's caller and route
--     have in the same minute on average, and by what days differ beyond that
--   p_value: exact binomial test, doubled for the choice of the unit, the greatest of those by time, per request of the API
--     and per other request of the cell; counts are divided by variance_factor. Where the cell explains the change of a
--     wider one that is surer, the wider one's
--   q_value: the same after Benjamini-Hochberg over all cells tested
--   first_seen: earliest error of the cell in the period and the 14 days (or two such periods) before it
--   example_request_ids: the three latest errors of the period, else of the day before, else of the week before
--   sentence: the change in words
CREATE OR REPLACE MACRO what_changed(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_errors := 20, min_factor := 2.0, max_q := 0.05, min_explained := 0.8, max_sentences := 15
) AS TABLE
WITH bounds AS (
    SELECT
        coalesce(
            epoch_us(utc_moment(since)),
            least(epoch_us(utc_moment(until)) - 1, epoch_us(data_through()) - 3600000000) // 86400000000 * 86400000000
        ) AS begins_us,
        epoch_us(data_through()) + 1 AS through_us,
        epoch_us(data_begins()) AS data_begins_us
),
asked_lengths AS (
    SELECT
        begins_us,
        through_us,
        data_begins_us,
        coalesce(
            epoch_us(utc_moment(until)),
            CASE WHEN since IS NULL THEN begins_us + 86400000000 ELSE through_us END
        ) - begins_us AS asked_us
    FROM bounds
    WHERE through_us IS NOT NULL
),
lengths AS (
    SELECT
        begins_us,
        data_begins_us,
        asked_us,
        -- Where the data end in the last twentieth of what is asked for, nothing seems to be missing.
        CASE
            WHEN asked_us > 0 AND through_us - begins_us >= 0.95 * asked_us THEN asked_us
            ELSE greatest(0, least(asked_us, through_us - begins_us))
        END AS length_us
    FROM asked_lengths
),
-- A day is compared with days, anything longer with whole weeks; `second_step` is the second baseline.
period AS (
    SELECT
        begins_us,
        length_us,
        data_begins_us,
        CASE
            WHEN length_us <= 86400000000 THEN 86400000000
            ELSE ceil(length_us / 604800000000)::BIGINT * 604800000000
        END AS step_us,
        CASE WHEN length_us <= 86400000000 THEN 7 ELSE 2 END AS second_step,
        CASE WHEN length_us <= 86400000000 THEN 14 ELSE 2 END AS last_step
    FROM lengths
),
failures AS (
    SELECT
        coalesce(requests.code, requests.gateway_reason, '(no code)') AS label,
        coalesce(requests.method, '') AS method,
        coalesce(requests.route, '') AS route,
        coalesce(requests.org_id, '') AS org_id,
        coalesce(requests.caller, '') AS caller,
        requests.ts,
        requests.request_id,
        (period.begins_us - epoch_us(requests.ts) + period.step_us - 1) // period.step_us AS step
    FROM requests
    CROSS JOIN period
    WHERE requests.kind = 'error'
      AND (until IS NULL OR requests.day <= until::TIMESTAMP::DATE)
      AND epoch_us(requests.ts) >= period.begins_us - period.last_step * period.step_us
      AND epoch_us(requests.ts) < period.begins_us + period.length_us
      AND (for_org IS NULL OR requests.org_id = for_org)
      AND (for_key IS NULL OR requests.caller = for_key)
      AND (for_route IS NULL OR requests.route = for_route)
),
minutes AS (
    SELECT
        failures.label, failures.method, failures.route, failures.org_id, failures.caller, failures.step,
        minute_of(failures.ts) AS minute_number,
        count(*) AS errors
    FROM failures
    CROSS JOIN period
    WHERE failures.step IN (0, 1, period.second_step)
      AND epoch_us(failures.ts) < period.begins_us - failures.step * period.step_us + period.length_us
    GROUP BY ALL
),
leaves AS (
    SELECT
        label, method, route, org_id, caller, step,
        sum(errors) AS errors,
        sum(errors * errors) AS squares,
        count(DISTINCT minute_number // 10) AS bursts
    FROM minutes
    GROUP BY ALL
),
caller_totals AS (
    SELECT
        label, method, route, org_id, caller, step, errors, squares, bursts,
        sum(errors) OVER (PARTITION BY label, method, route, org_id, caller) AS caller_errors
    FROM leaves
),
traffic AS (
    SELECT
        coalesce(asked.method, '') AS method,
        coalesce(asked.route, '') AS route,
        coalesce(asked.org_id, '') AS org_id,
        coalesce(asked.caller, '') AS caller,
        (period.begins_us - epoch_us(asked.ts) + period.step_us - 1) // period.step_us AS step,
        count(*) AS requests
    FROM requests AS asked
    CROSS JOIN period
    WHERE (since IS NULL OR asked.day >= (since::TIMESTAMP - INTERVAL 7 DAY)::DATE OR period.step_us > 86400000000)
      AND (until IS NULL OR asked.day <= until::TIMESTAMP::DATE)
      AND (
          (
              epoch_us(asked.ts) >= period.begins_us
              AND epoch_us(asked.ts) < period.begins_us + period.length_us
          )
          OR (
              epoch_us(asked.ts) >= period.begins_us - period.step_us
              AND epoch_us(asked.ts) < period.begins_us - period.step_us + period.length_us
          )
          OR (
              epoch_us(asked.ts) >= period.begins_us - period.second_step * period.step_us
              AND epoch_us(asked.ts) < period.begins_us - period.second_step * period.step_us + period.length_us
          )
      )
      AND (for_org IS NULL OR asked.org_id = for_org)
      AND (for_key IS NULL OR asked.caller = for_key)
      AND (for_route IS NULL OR asked.route = for_route)
    GROUP BY ALL
),
-- A baseline counts where the data begin in the first tenth of it at the latest.
totals AS (
    SELECT
        period.begins_us,
        period.length_us,
        period.step_us,
        period.second_step,
        period.last_step,
        (period.begins_us - period.data_begins_us + period.length_us // 10) // period.step_us AS steps_known,
        coalesce(sum(traffic.requests) FILTER (WHERE traffic.step = 0), 0) AS all_requests,
        CASE
            WHEN period.data_begins_us <= period.begins_us - period.step_us + period.length_us // 10
                THEN sum(traffic.requests) FILTER (WHERE traffic.step = 1)
        END AS previous_all_requests,
        CASE
            WHEN period.data_begins_us
                <= period.begins_us - period.second_step * period.step_us + period.length_us // 10
                THEN sum(traffic.requests) FILTER (WHERE traffic.step = period.second_step)
        END AS week_before_all_requests
    FROM period
    LEFT JOIN traffic ON true
    GROUP BY
        period.begins_us, period.length_us, period.step_us, period.second_step, period.last_step,
        period.data_begins_us
),
cells AS (
    SELECT
        caller_totals.label, caller_totals.method, caller_totals.route, caller_totals.org_id, caller_totals.caller,
        coalesce(sum(caller_totals.errors) FILTER (WHERE caller_totals.step = 0), 0) AS errors,
        coalesce(sum(caller_totals.errors) FILTER (WHERE caller_totals.step = 1), 0) AS previous_errors,
        coalesce(sum(caller_totals.errors) FILTER (WHERE caller_totals.step > 1), 0) AS week_before_errors,
        coalesce(sum(caller_totals.bursts) FILTER (WHERE caller_totals.step = 0), 0) AS bursts,
        coalesce(sum(caller_totals.bursts) FILTER (WHERE caller_totals.step = 1), 0) AS previous_bursts,
        coalesce(sum(caller_totals.bursts) FILTER (WHERE caller_totals.step > 1), 0) AS week_before_bursts,
        sum(caller_totals.squares) / sum(caller_totals.errors) AS burst_size,
        sum(caller_totals.errors * caller_totals.caller_errors) / sum(caller_totals.errors) AS caller_errors
    FROM caller_totals
    GROUP BY GROUPING SETS (
        (caller_totals.label),
        (caller_totals.label, caller_totals.method, caller_totals.route),
        (caller_totals.label, caller_totals.org_id),
        (caller_totals.label, caller_totals.method, caller_totals.route, caller_totals.org_id),
        (caller_totals.label, caller_totals.org_id, caller_totals.caller),
        (caller_totals.label, caller_totals.method, caller_totals.route, caller_totals.org_id, caller_totals.caller)
    )
    -- What explains most of the change of a cell that is tested has at least so many.
    HAVING coalesce(sum(caller_totals.errors) FILTER (WHERE caller_totals.step = 0), 0) >= 0.4 * min_errors
        OR sum(caller_totals.errors) FILTER (WHERE caller_totals.step > 0) >= 0.4 * min_errors
),
-- A change by min_factor is one by its root at least against each baseline; what explains min_explained of it changed a
-- little less. Twice each: per request of the API, and by time. The day before is of another weekday, so that one of both is enough
-- for it where the same weekday is there.
comparisons AS (
    SELECT
        cells.label, cells.method, cells.route, cells.org_id, cells.caller,
        cells.errors, cells.previous_errors, cells.week_before_errors,
        totals.begins_us, totals.length_us, totals.step_us, totals.second_step,
        totals.all_requests, totals.previous_all_requests, totals.week_before_all_requests,
        CASE WHEN totals.previous_all_requests IS NOT NULL THEN 1 END AS previous_time,
        CASE WHEN totals.week_before_all_requests IS NOT NULL THEN 1 END AS week_before_time,
        sqrt(1 + min_explained * (min_factor - 1)) AS factor
    FROM cells
    CROSS JOIN totals
    WHERE coalesce(totals.previous_all_requests, totals.week_before_all_requests) IS NOT NULL
),
suspects AS (
    SELECT label, method, route, org_id, caller, begins_us, length_us, step_us, second_step
    FROM comparisons
    WHERE (
            is_more(errors, all_requests, week_before_errors, week_before_all_requests, factor)
            AND is_more(errors, 1, week_before_errors, week_before_time, factor)
            AND (
                is_more(errors, all_requests, previous_errors, previous_all_requests, factor)
                OR (week_before_time IS NOT NULL AND is_more(errors, 1, previous_errors, previous_time, factor))
            )
            AND (week_before_time IS NOT NULL OR is_more(errors, 1, previous_errors, previous_time, factor))
        )
        OR (
            is_more(week_before_errors, week_before_all_requests, errors, all_requests, factor)
            AND is_more(week_before_errors, week_before_time, errors, 1, factor)
            AND (
                is_more(previous_errors, previous_all_requests, errors, all_requests, factor)
                OR (week_before_time IS NOT NULL AND is_more(previous_errors, previous_time, errors, 1, factor))
            )
            AND (week_before_time IS NOT NULL OR is_more(previous_errors, previous_time, errors, 1, factor))
        )
),
-- How much days of one caller differ is measured on the largest ones.
references_of_noise AS (
    SELECT label, method, route, org_id, caller, begins_us, length_us, step_us, second_step
    FROM comparisons
    WHERE method IS NOT NULL
      AND caller IS NOT NULL
    ORDER BY previous_errors + week_before_errors DESC, label, method, route, org_id, caller
    LIMIT 50
),
cells_with_history AS (
    SELECT label, method, route, org_id, caller, begins_us, length_us, step_us, second_step
    FROM suspects
    UNION
    SELECT label, method, route, org_id, caller, begins_us, length_us, step_us, second_step
    FROM references_of_noise
),
-- What a cell tells apart: to compare what it does not tell by OR takes fifty times as long.
shapes AS (
    SELECT DISTINCT method IS NOT NULL AS has_place, org_id IS NOT NULL AS has_org, caller IS NOT NULL AS has_caller
    FROM cells_with_history
),
shaped_traffic AS (
    SELECT
        CASE WHEN shapes.has_place THEN traffic.method END AS method,
        CASE WHEN shapes.has_place THEN traffic.route END AS route,
        CASE WHEN shapes.has_org THEN traffic.org_id END AS org_id,
        CASE WHEN shapes.has_caller THEN traffic.caller END AS caller,
        sum(traffic.requests) FILTER (WHERE traffic.step = 0) AS requests,
        sum(traffic.requests) FILTER (WHERE traffic.step = 1) AS previous_requests,
        sum(traffic.requests) FILTER (WHERE traffic.step > 1) AS week_before_requests
    FROM traffic
    CROSS JOIN shapes
    GROUP BY ALL
),
suspect_traffic AS (
    SELECT
        suspects.label, suspects.method, suspects.route, suspects.org_id, suspects.caller,
        shaped_traffic.requests, shaped_traffic.previous_requests, shaped_traffic.week_before_requests
    FROM suspects
    INNER JOIN shaped_traffic
        ON shaped_traffic.method IS NOT DISTINCT FROM suspects.method
        AND shaped_traffic.route IS NOT DISTINCT FROM suspects.route
        AND shaped_traffic.org_id IS NOT DISTINCT FROM suspects.org_id
        AND shaped_traffic.caller IS NOT DISTINCT FROM suspects.caller
),
shaped_failures AS (
    SELECT
        failures.label, failures.method, failures.route, failures.caller, failures.ts, failures.request_id, failures.step,
        CASE WHEN shapes.has_place THEN failures.method END AS cell_method,
        CASE WHEN shapes.has_place THEN failures.route END AS cell_route,
        CASE WHEN shapes.has_org THEN failures.org_id END AS cell_org_id,
        CASE WHEN shapes.has_caller THEN failures.caller END AS cell_caller
    FROM failures
    CROSS JOIN shapes
),
told_failures AS (
    SELECT
        told.label, told.method, told.route, told.org_id, told.caller,
        failures.ts,
        failures.request_id,
        failures.step,
        struct_pack(
            caller := failures.caller,
            method := failures.method,
            route := failures.route,
            minute_number := minute_of(failures.ts)
        ) AS caller_minute,
        epoch_us(failures.ts) < told.begins_us - failures.step * told.step_us + told.length_us
            AS is_compared,
        row_number() OVER (
            PARTITION BY told.label, told.method, told.route, told.org_id, told.caller
            ORDER BY
                epoch_us(failures.ts)
                    < told.begins_us - failures.step * told.step_us + told.length_us DESC,
                failures.step IN (0, 1, told.second_step) DESC,
                failures.step,
                failures.ts DESC,
                failures.request_id
        ) AS recency
    FROM cells_with_history AS told
    INNER JOIN shaped_failures AS failures
        ON failures.label = told.label
        AND failures.cell_method IS NOT DISTINCT FROM told.method
        AND failures.cell_route IS NOT DISTINCT FROM told.route
        AND failures.cell_org_id IS NOT DISTINCT FROM told.org_id
        AND failures.cell_caller IS NOT DISTINCT FROM told.caller
),
told_steps AS (
    SELECT
        label, method, route, org_id, caller, step,
        -- In minutes of a caller on a route: a loop of a day before is no habit.
        count(DISTINCT CASE WHEN is_compared THEN caller_minute END) AS minutes,
        min(ts) AS first_seen,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS request_ids
    FROM told_failures
    GROUP BY ALL
),
histories AS (
    SELECT
        label, method, route, org_id, caller,
        min(first_seen) AS first_seen,
        list(step::BIGINT ORDER BY step) AS steps,
        list(minutes ORDER BY step) AS minutes_of_steps,
        flatten(list(request_ids ORDER BY step) FILTER (WHERE request_ids IS NOT NULL)) AS example_request_ids
    FROM told_steps
    GROUP BY ALL
)
SELECT
    make_timestamptz(totals.begins_us) AS period_since,
    make_timestamptz(totals.begins_us + totals.length_us) AS period_until,
    totals.step_us // 86400000000 AS step_days,
    least(totals.steps_known, totals.last_step) AS steps_known,
    totals.all_requests::BIGINT AS all_requests,
    totals.previous_all_requests::BIGINT AS previous_all_requests,
    totals.week_before_all_requests::BIGINT AS week_before_all_requests,
    cells.label AS code,
    cells.method,
    cells.route,
    cells.org_id,
    cells.caller AS key,
    cells.errors::BIGINT AS errors,
    cells.previous_errors::BIGINT AS previous_errors,
    cells.week_before_errors::BIGINT AS week_before_errors,
    cells.bursts::BIGINT AS bursts,
    cells.previous_bursts::BIGINT AS previous_bursts,
    cells.week_before_bursts::BIGINT AS week_before_bursts,
    cells.burst_size,
    cells.caller_errors,
    suspect_traffic.label IS NOT NULL AS is_suspect,
    suspect_traffic.requests::BIGINT AS requests,
    coalesce(suspect_traffic.previous_requests, 0)::BIGINT AS previous_requests,
    coalesce(suspect_traffic.week_before_requests, 0)::BIGINT AS week_before_requests,
    histories.first_seen,
    histories.steps,
    histories.minutes_of_steps,
    histories.example_request_ids
FROM totals
LEFT JOIN cells ON true
LEFT JOIN suspect_traffic
    ON suspect_traffic.label = cells.label
    AND suspect_traffic.method IS NOT DISTINCT FROM cells.method
    AND suspect_traffic.route IS NOT DISTINCT FROM cells.route
    AND suspect_traffic.org_id IS NOT DISTINCT FROM cells.org_id
    AND suspect_traffic.caller IS NOT DISTINCT FROM cells.caller
LEFT JOIN histories
    ON histories.label = cells.label
    AND histories.method IS NOT DISTINCT FROM cells.method
    AND histories.route IS NOT DISTINCT FROM cells.route
    AND histories.org_id IS NOT DISTINCT FROM cells.org_id
    AND histories.caller IS NOT DISTINCT FROM cells.caller
WHERE totals.all_requests > 0
ORDER BY
    cells.label NULLS FIRST, cells.method NULLS FIRST, cells.route NULLS FIRST, cells.org_id NULLS FIRST,
    cells.caller NULLS FIRST;
