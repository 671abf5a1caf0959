-- Runs of errors, a row each: those of one caller from one address, answered alike, never more than max_gap_s seconds
-- from the end of one to the end of the next.
--   answer: the code, else the gateway's reason, else the status
--   started_at, ended_at: ends of the first and the last error
--   errors: how many; peak_per_second: the most in one second of the clock
--   request_ids: of the first three
CREATE OR REPLACE MACRO runs(since, until, for_org, for_key, for_route, max_gap_s) AS TABLE
WITH failures AS (
    SELECT
        caller, client_ip, org_id, route, request_id,
        coalesce(code, gateway_reason, status::VARCHAR) AS answer,
        epoch_us(ts) AS end_us
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error
),
gaps AS (
    SELECT
        caller, client_ip, org_id, route, request_id, answer, end_us,
        CASE
            WHEN end_us - lag(end_us) OVER (
                PARTITION BY caller, client_ip, answer
                ORDER BY end_us, request_id NULLS LAST
            ) <= max_gap_s * 1e6 THEN 0
            ELSE 1
        END AS is_first
    FROM failures
),
numbered AS (
    SELECT
        caller, client_ip, org_id, route, request_id, answer, end_us,
        sum(is_first) OVER (
            PARTITION BY caller, client_ip, answer
            ORDER BY end_us, request_id NULLS LAST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS run
    FROM gaps
),
placed AS (
    SELECT
        caller, client_ip, org_id, route, request_id, answer, end_us, run,
        row_number() OVER (
            PARTITION BY caller, client_ip, answer, run
            ORDER BY end_us, request_id NULLS LAST
        ) AS place,
        count(*) OVER (PARTITION BY caller, client_ip, answer, run, end_us // 1000000) AS in_second
    FROM numbered
)
SELECT
    caller,
    client_ip,
    max(org_id) AS org_id,
    answer,
    count(DISTINCT route) AS routes,
    make_timestamptz(min(end_us)) AS started_at,
    make_timestamptz(max(end_us)) AS ended_at,
    count(*) AS errors,
    max(in_second) AS peak_per_second,
    list(request_id ORDER BY place) FILTER (WHERE place <= 3 AND request_id IS NOT NULL) AS request_ids
FROM placed
GROUP BY caller, client_ip, answer, run;
