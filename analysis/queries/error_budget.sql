-- title: Error budget
-- asks: How much of the error budget is left, and is it burning too fast right now?
-- chart: bar(alert, burn_rate)
-- param until: the moment to look back from (UTC date or timestamp); the data-through time when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param objective: the part of the requests that the platform shall not fail
-- columns:
--   alert: budget (the 30 days that it is for), fast burn (2 % of it in an hour), slow burn (5 % in six hours) or
--     creeping (10 % in three days): windows and thresholds of the Google SRE workbook, chapter 5
--   window_h: hours looked back over
--   faults: requests in them answered with a status of 500 and above, with or without an envelope, or with
--     internal_error. What clients do wrong costs no budget
--   requests: all requests in them
--   fault_rate: faults / requests
--   burn_rate: fault_rate / (1 - objective); 1 uses the budget up in exactly 30 days
--   short_window_h: hours of the short window: where it has recovered, the alert is over
--   short_faults: faults in them
--   short_requests: requests in them
--   short_burn_rate: as burn_rate
--   threshold: burn rate from which it is an alert
--   is_burning: both burn rates are at least threshold; of the budget: it is used up
--   budget_left: part of the budget that is left; negative where it is overdrawn; NULL for the alerts
--   is_whole_window: do the data reach back over window_h? Where not, it is about what there is
CREATE OR REPLACE MACRO error_budget(
    until := NULL, for_org := NULL, for_key := NULL, for_route := NULL, objective := 0.999
) AS TABLE
WITH recent AS (
    SELECT (epoch_us(looked_back(until, 0)) - epoch_us(ts)) / 1e6 AS age_s
    FROM requests_in_scope(looked_back(until, 259200), looked_back(until, 0), for_org, for_key, for_route)
),
-- Each request under the shortest window that holds it, so that they are read once.
by_shortest AS (
    SELECT
        CASE
            WHEN age_s <= 300 THEN 300
            WHEN age_s <= 1800 THEN 1800
            WHEN age_s <= 3600 THEN 3600
            WHEN age_s <= 21600 THEN 21600
            ELSE 259200
        END AS shortest_s,
        count(*) AS requests
    FROM recent
    GROUP BY ALL
),
asked AS (
    SELECT lengths.window_s, sum(by_shortest.requests) AS requests
    FROM (SELECT unnest([300, 1800, 3600, 21600, 259200]) AS window_s) AS lengths
    LEFT JOIN by_shortest ON by_shortest.shortest_s <= lengths.window_s
    GROUP BY lengths.window_s
    UNION ALL
    SELECT 2592000 AS window_s, sum(requests) AS requests
    FROM request_counts(looked_back(until, 2592000), looked_back(until, 0), for_org, for_key, for_route)
),
faults AS (
    SELECT (epoch_us(looked_back(until, 0)) - epoch_us(ts)) / 1e6 AS age_s
    FROM requests_in_scope(looked_back(until, 2592000), looked_back(until, 0), for_org, for_key, for_route)
    WHERE is_error
      AND is_platform_fault(status, code)
),
windows AS (
    SELECT
        asked.window_s,
        coalesce(max(asked.requests), 0) AS requests,
        count(faults.age_s) AS faults
    FROM asked
    LEFT JOIN faults ON faults.age_s <= asked.window_s
    GROUP BY asked.window_s
),
alerts AS (
    SELECT 1 AS place, 'budget' AS alert, 2592000 AS window_s, NULL::BIGINT AS short_window_s, 1.0 AS threshold
    UNION ALL
    SELECT 2 AS place, 'fast burn' AS alert, 3600 AS window_s, 300 AS short_window_s, 14.4 AS threshold
    UNION ALL
    SELECT 3 AS place, 'slow burn' AS alert, 21600 AS window_s, 1800 AS short_window_s, 6.0 AS threshold
    UNION ALL
    SELECT 4 AS place, 'creeping' AS alert, 259200 AS window_s, 21600 AS short_window_s, 1.0 AS threshold
),
burns AS (
    SELECT
        alerts.place,
        alerts.alert,
        alerts.threshold,
        alerts.window_s,
        alerts.short_window_s,
        long_window.faults,
        long_window.requests,
        long_window.faults / nullif(long_window.requests, 0) AS fault_rate,
        long_window.faults / nullif(long_window.requests, 0) / nullif(1 - objective, 0) AS burn_rate,
        short_window.faults AS short_faults,
        short_window.requests AS short_requests,
        short_window.faults / nullif(short_window.requests, 0) / nullif(1 - objective, 0) AS short_burn_rate
    FROM alerts
    INNER JOIN windows AS long_window ON long_window.window_s = alerts.window_s
    LEFT JOIN windows AS short_window ON short_window.window_s = alerts.short_window_s
)
SELECT
    burns.alert,
    burns.window_s / 3600 AS window_h,
    burns.faults,
    burns.requests::BIGINT AS requests,
    burns.fault_rate,
    burns.burn_rate,
    burns.short_window_s / 3600 AS short_window_h,
    burns.short_faults,
    burns.short_requests::BIGINT AS short_requests,
    burns.short_burn_rate,
    burns.threshold::DOUBLE AS threshold,
    coalesce(burns.burn_rate >= burns.threshold, false)
        AND (burns.short_window_s IS NULL OR coalesce(burns.short_burn_rate >= burns.threshold, false)) AS is_burning,
    CASE WHEN burns.alert = 'budget' THEN 1 - burns.burn_rate END AS budget_left,
    epoch_us(data_begins()) <= epoch_us(looked_back(until, burns.window_s)) AS is_whole_window
FROM burns
WHERE (SELECT max(requests) FROM windows) > 0
ORDER BY burns.place;
