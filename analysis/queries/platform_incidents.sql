-- title: Platform incidents
-- asks: When did the platform itself fail more than usual, where, for whom, and which requests can support look into?
-- codes: internal_error
-- chart: bar(started_at, faults)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_faults: so many faults beyond chance (five standard deviations and this) make a second, a minute or ten
--     minutes part of an incident
-- param min_factor: if they are also so many times what is expected
-- param max_p: an incident is at most this likely by chance
-- param min_customer_share: one organisation, or caller without one, with this part of the faults is their cause, if
--     the others have no more than is expected of them
-- columns:
--   started_at: the first fault of the incident
--   peaked_at: start of the second (of the minute, where it lasts two minutes and more) with most faults
--   ended_at: the last fault of it; incidents are one where the pause between them is at most five seconds, or five
--     minutes where they are not told by the second
--   duration_s: seconds from started_at to ended_at
--   verdict: platform, or one customer, whose own requests make the API fail
--   method: HTTP method, with route
--   route: the route that has four fifths of the faults, if the others fail less than a quarter as often; else NULL: the
--     whole platform
--   origin: who answered four fifths of the faults: upstream (the API), gateway (the proxy before it); else mixed
--   reasons: the codes, and where there is none the gateway's reasons or the statuses, most frequent first
--   faults: requests answered with a status of 500 and above, with or without an envelope, or with internal_error
--   requests: all requests that ended in it
--   fault_rate: faults / requests
--   expected: faults that so long a time usually has: by the median of the same hour of the week where three weeks are
--     known, else of the hours (or 24ths, of less than a day) of the period; half a fault an hour at least
--   usual_rate: faults / requests of the period, without its incidents
--   p_value: exact Poisson test of faults against expected and exact binomial test of fault_rate against usual_rate, the
--     greater of both
--   orgs_hit: organisations with a fault
--   orgs_active: organisations with a request in it
--   share_of_orgs: orgs_hit / orgs_active
--   callers_hit: keys, or addresses without one, with a fault
--   top_customer: the organisation, or caller without one, with most faults
--   top_customer_share: its part of the faults
--   repeat_share: faults of callers that had met one on the same method and route less than a minute before
--   request_ids: the first fault of each of up to ten callers, to hand to support
CREATE OR REPLACE MACRO platform_incidents(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_faults := 5, min_factor := 3.0, max_p := 0.000001, min_customer_share := 0.8
) AS TABLE
WITH period AS (
    SELECT
        begins_us,
        greatest(1, ends_us - begins_us) AS length_us,
        least(3600000000, greatest(1000000, (ends_us - begins_us) // 24)) AS slice_us,
        (ends_us - data_begins_us) // 604800000000 AS weeks
    FROM (
        SELECT
            greatest(coalesce(epoch_us(utc_moment(since)), 0), epoch_us(data_begins())) AS begins_us,
            least(coalesce(epoch_us(utc_moment(until)), epoch_us(data_through()) + 1), epoch_us(data_through()) + 1)
                AS ends_us,
            epoch_us(data_begins()) AS data_begins_us
    )
    WHERE ends_us > begins_us
),
all_faults AS (
    SELECT
        epoch_us(failed.ts) AS ended_us,
        failed.ts, failed.request_id, failed.org_id, failed.caller, failed.method, failed.route, failed.origin,
        coalesce(failed.code, failed.gateway_reason, failed.status::VARCHAR) AS reason
    FROM requests AS failed
    WHERE failed.kind = 'error'
      AND is_platform_fault(failed.status, failed.code)
      AND (since IS NULL OR failed.day >= (since::TIMESTAMP - INTERVAL 35 DAY)::DATE)
      AND (until IS NULL OR (failed.day <= until::TIMESTAMP::DATE AND failed.ts < utc_moment(until)))
      AND (for_org IS NULL OR failed.org_id = for_org)
      AND (for_key IS NULL OR failed.caller = for_key)
      AND (for_route IS NULL OR failed.route = for_route)
),
faults AS (
    SELECT
        all_faults.ended_us, all_faults.ts, all_faults.request_id, all_faults.org_id, all_faults.caller,
        all_faults.method, all_faults.route, all_faults.origin, all_faults.reason,
        coalesce(
            all_faults.ended_us - lag(all_faults.ended_us) OVER (
                PARTITION BY all_faults.caller, all_faults.method, all_faults.route
                ORDER BY all_faults.ended_us, all_faults.request_id
            ) < 60000000,
            false
        ) AS is_repeat
    FROM all_faults
    INNER JOIN period ON all_faults.ended_us >= period.begins_us
),
-- The median counts the slices without a fault, of which there are no rows: it is the value at that place from above.
slices AS (
    SELECT faults, row_number() OVER (ORDER BY faults DESC, slice) AS place
    FROM (
        SELECT (faults.ended_us - period.begins_us) // period.slice_us AS slice, count(*) AS faults
        FROM faults
        CROSS JOIN period
        GROUP BY ALL
    )
),
usual_slice AS (
    SELECT greatest(0.5 * period.slice_us / 3600000000, coalesce(max(slices.faults), 0)) / period.slice_us AS faults_a_us
    FROM period
    LEFT JOIN slices ON slices.place = (period.length_us // period.slice_us) // 2 + 1
    GROUP BY period.slice_us
),
hours AS (
    SELECT
        hour_number % 168 AS hour_of_week,
        faults,
        row_number() OVER (PARTITION BY hour_number % 168 ORDER BY faults DESC, hour_number) AS place
    FROM (
        SELECT all_faults.ended_us // 3600000000 AS hour_number, count(*) AS faults
        FROM all_faults
        INNER JOIN period ON period.weeks >= 3
        GROUP BY ALL
    )
),
usual_hours AS (
    SELECT hours.hour_of_week, hours.faults / 3600000000 AS faults_a_us
    FROM hours
    INNER JOIN period ON hours.place = least(period.weeks, 5) // 2 + 1
),
seconds AS (
    SELECT
        ended_us // 1000000 AS second_number,
        count(*) AS faults,
        min(ended_us) AS first_us,
        max(ended_us) AS last_us
    FROM faults
    GROUP BY ALL
),
expected_seconds AS (
    SELECT
        seconds.second_number, seconds.faults, seconds.first_us, seconds.last_us,
        CASE
            WHEN period.weeks >= 3 THEN greatest(coalesce(usual_hours.faults_a_us, 0), 0.5 / 3600000000)
            ELSE usual_slice.faults_a_us
        END * 1000000 AS expected_a_second
    FROM seconds
    CROSS JOIN period
    CROSS JOIN usual_slice
    LEFT JOIN usual_hours ON usual_hours.hour_of_week = seconds.second_number // 3600 % 168
),
hot_seconds AS (
    SELECT
        second_number, faults, first_us, last_us, expected_a_second,
        is_beyond(faults, expected_a_second, min_faults, min_factor) AS is_hot
    FROM expected_seconds
),
-- What is left of a minute without its hot seconds, and of ten minutes without their hot minutes.
hot_minutes AS (
    SELECT
        second_number // 60 AS minute_number,
        sum(faults) AS faults,
        min(first_us) AS first_us,
        max(last_us) AS last_us,
        max(expected_a_second) AS expected_a_second,
        is_beyond(sum(faults), 60 * max(expected_a_second), min_faults, min_factor) AS is_hot
    FROM hot_seconds
    WHERE NOT is_hot
    GROUP BY ALL
),
hot_ten_minutes AS (
    SELECT
        minute_number // 10 AS ten_minutes,
        min(first_us) AS first_us,
        max(last_us) AS last_us,
        is_beyond(sum(faults), 600 * max(expected_a_second), min_faults, min_factor) AS is_hot
    FROM hot_minutes
    WHERE NOT is_hot
    GROUP BY ALL
),
hot_times AS (
    SELECT first_us, last_us, 5000000 AS pause_us
    FROM hot_seconds
    WHERE is_hot
    UNION ALL
    SELECT first_us, last_us, 300000000 AS pause_us
    FROM hot_minutes
    WHERE is_hot
    UNION ALL
    SELECT first_us, last_us, 300000000 AS pause_us
    FROM hot_ten_minutes
    WHERE is_hot
),
openings AS (
    SELECT
        first_us,
        last_us,
        pause_us,
        coalesce(
            first_us > max(last_us + pause_us) OVER (
                ORDER BY first_us, last_us, pause_us
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            )
            AND first_us - pause_us > max(last_us) OVER (
                ORDER BY first_us, last_us, pause_us
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ),
            true
        ) AS is_opening
    FROM hot_times
),
numbered AS (
    SELECT
        first_us,
        last_us,
        sum(CASE WHEN is_opening THEN 1 ELSE 0 END) OVER (
            ORDER BY first_us, last_us, pause_us
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS incident
    FROM openings
),
incidents AS (
    SELECT incident::BIGINT AS incident, min(first_us) AS first_us, max(last_us) AS last_us
    FROM numbered
    GROUP BY ALL
),
incident_faults AS (
    SELECT
        incidents.incident, incidents.first_us, incidents.last_us, faults.ended_us, faults.ts, faults.request_id,
        coalesce(faults.org_id, faults.caller) AS customer,
        faults.org_id, faults.caller, faults.method, faults.route, faults.origin, faults.reason, faults.is_repeat,
        row_number() OVER (
            PARTITION BY incidents.incident, faults.caller
            ORDER BY faults.ended_us, faults.request_id
        ) AS place_of_caller
    FROM faults
    INNER JOIN incidents ON faults.ended_us BETWEEN incidents.first_us AND incidents.last_us
),
first_faults AS (
    SELECT
        incident, request_id, ended_us,
        row_number() OVER (PARTITION BY incident ORDER BY ended_us, request_id) AS place
    FROM incident_faults
    WHERE place_of_caller = 1
      AND request_id IS NOT NULL
),
handed_over AS (
    SELECT incident, list(request_id ORDER BY place) AS request_ids
    FROM first_faults
    WHERE place <= 10
    GROUP BY ALL
),
reasons AS (
    SELECT incident, reason, row_number() OVER (PARTITION BY incident ORDER BY faults DESC, reason) AS place
    FROM (
        SELECT incident, reason, count(*) AS faults
        FROM incident_faults
        GROUP BY ALL
    )
),
ranked_reasons AS (
    SELECT incident, list(reason ORDER BY place) AS reasons
    FROM reasons
    GROUP BY ALL
),
peaks AS (
    SELECT incident, peaked_us, row_number() OVER (PARTITION BY incident ORDER BY faults DESC, peaked_us) AS place
    FROM (
        SELECT
            incident,
            CASE WHEN last_us - first_us >= 120000000 THEN ended_us // 60000000 * 60000000
                ELSE ended_us // 1000000 * 1000000
            END AS peaked_us,
            count(*) AS faults
        FROM incident_faults
        GROUP BY ALL
    )
),
customers AS (
    SELECT
        incident, customer, faults,
        row_number() OVER (PARTITION BY incident ORDER BY faults DESC, customer NULLS LAST) AS place
    FROM (
        SELECT incident, customer, count(*) AS faults
        FROM incident_faults
        GROUP BY ALL
    )
),
traffic AS (
    SELECT
        incidents.incident, asked.method, asked.route, asked.org_id,
        coalesce(asked.org_id, asked.caller) AS customer,
        count(*) AS requests
    FROM requests AS asked
    INNER JOIN incidents
        ON asked.ts BETWEEN make_timestamptz(incidents.first_us) AND make_timestamptz(incidents.last_us)
    WHERE (since IS NULL OR asked.day >= since::TIMESTAMP::DATE)
      AND (until IS NULL OR asked.day <= until::TIMESTAMP::DATE)
      AND (for_org IS NULL OR asked.org_id = for_org)
      AND (for_key IS NULL OR asked.caller = for_key)
      AND (for_route IS NULL OR asked.route = for_route)
    GROUP BY ALL
),
traffic_totals AS (
    SELECT incident, sum(requests) AS requests, count(DISTINCT org_id) AS orgs_active
    FROM traffic
    GROUP BY ALL
),
customer_traffic AS (
    SELECT incident, customer, sum(requests) AS requests
    FROM traffic
    GROUP BY ALL
),
routes AS (
    SELECT
        incident, method, route, faults,
        row_number() OVER (PARTITION BY incident ORDER BY faults DESC, route NULLS LAST, method NULLS LAST) AS place
    FROM (
        SELECT incident, method, route, count(*) AS faults
        FROM incident_faults
        GROUP BY ALL
    )
),
route_traffic AS (
    SELECT incident, method, route, sum(requests) AS requests
    FROM traffic
    GROUP BY ALL
),
totals AS (
    SELECT
        incident, first_us, last_us,
        count(*) AS faults,
        count(*) FILTER (WHERE origin = 'upstream') AS upstream_faults,
        count(DISTINCT org_id) AS orgs_hit,
        count(DISTINCT caller) AS callers_hit,
        count(*) FILTER (WHERE is_repeat) AS repeats
    FROM incident_faults
    GROUP BY ALL
),
in_period AS (
    SELECT
        (SELECT sum(requests) FROM request_counts(since, until, for_org, for_key, for_route)) AS requests,
        (SELECT count(*) FROM faults) AS faults,
        (SELECT sum(faults) FROM totals) AS incident_faults,
        (SELECT sum(requests) FROM traffic_totals) AS incident_requests
)
SELECT
    make_timestamptz(totals.first_us) AS started_at,
    make_timestamptz(peaks.peaked_us) AS peaked_at,
    make_timestamptz(totals.last_us) AS ended_at,
    (totals.last_us - totals.first_us) / 1e6 AS duration_s,
    routes.method,
    routes.route,
    routes.faults AS route_faults,
    route_traffic.requests::BIGINT AS route_requests,
    totals.faults,
    totals.upstream_faults,
    traffic_totals.requests::BIGINT AS requests,
    -- A second at least: faults of one moment have no duration.
    greatest(1, (totals.last_us - totals.first_us) / 1e6) * expected_seconds.expected_a_second AS expected,
    (in_period.faults - in_period.incident_faults)::BIGINT AS usual_faults,
    (in_period.requests - in_period.incident_requests)::BIGINT AS usual_requests,
    totals.orgs_hit,
    traffic_totals.orgs_active,
    totals.callers_hit,
    customers.customer AS top_customer,
    customers.faults AS top_customer_faults,
    customer_traffic.requests::BIGINT AS top_customer_requests,
    totals.repeats,
    ranked_reasons.reasons,
    handed_over.request_ids
FROM totals
CROSS JOIN in_period
INNER JOIN expected_seconds ON expected_seconds.second_number = totals.first_us // 1000000
INNER JOIN traffic_totals ON traffic_totals.incident = totals.incident
INNER JOIN peaks ON peaks.incident = totals.incident AND peaks.place = 1
INNER JOIN customers ON customers.incident = totals.incident AND customers.place = 1
INNER JOIN routes ON routes.incident = totals.incident AND routes.place = 1
INNER JOIN ranked_reasons ON ranked_reasons.incident = totals.incident
LEFT JOIN customer_traffic
    ON customer_traffic.incident = totals.incident
    AND customer_traffic.customer IS NOT DISTINCT FROM customers.customer
LEFT JOIN route_traffic
    ON route_traffic.incident = totals.incident
    AND route_traffic.method IS NOT DISTINCT FROM routes.method
    AND route_traffic.route IS NOT DISTINCT FROM routes.route
LEFT JOIN handed_over ON handed_over.incident = totals.incident
ORDER BY totals.faults DESC, totals.first_us;
