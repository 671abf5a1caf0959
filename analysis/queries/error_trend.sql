-- title: Error trend
-- asks: How do errors and their rate develop over time, code by code?
-- chart: line(bucket_start, errors, label)
-- param since: first moment, inclusive (UTC date or timestamp); the first request when NULL
-- param until: last moment, exclusive (UTC date or timestamp); the data-through time when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_code: only this code
-- param for_route: only this route
-- param bucket: minute, hour or day; NULL chooses minute up to 6 hours of range, hour up to 14 days, day beyond
-- param tz: zone whose midnights and full hours bound the buckets, an IANA name
-- columns:
--   bucket_start: first moment of the bucket
--   bucket_size: minute, hour or day
--   label: the code; else why the gateway answered itself; else (no code)
--   code: error code of the envelope; NULL where the response had none that could be read
--   errors: errors of the label in the bucket; 0 where it met none, so that a line does not bridge the bucket
--   requests: requests of the bucket, whatever their answer; a bucket without requests has no row
--   rate: errors / requests
CREATE OR REPLACE MACRO error_trend(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_code := NULL, for_route := NULL,
    bucket := NULL, tz := 'UTC'
) AS TABLE
WITH range_bounds AS (
    SELECT
        coalesce(utc_moment(since), data_begins()) AS first_moment,
        coalesce(utc_moment(until), data_through()) AS last_moment
),
chosen AS (
    SELECT CASE
        WHEN bucket IN ('minute', 'hour', 'day') THEN bucket
        WHEN bucket IS NOT NULL THEN error('bucket: expected minute, hour or day, got ' || bucket)
        WHEN epoch_us(last_moment) - epoch_us(first_moment) <= microseconds(6 * 3600) THEN 'minute'
        WHEN epoch_us(last_moment) - epoch_us(first_moment) <= microseconds(14 * 86400) THEN 'hour'
        ELSE 'day'
    END AS bucket_size
    FROM range_bounds
),
-- Days of UTC are counted at ingest. A scan whose join partner is empty is never made.
request_days AS (
    SELECT epoch_us(day::TIMESTAMP) // 60000000 AS minute_number, sum(requests) AS requests
    FROM request_counts(since, until, for_org, for_key, for_route)
    CROSS JOIN (SELECT bucket_size FROM chosen WHERE bucket_size = 'day' AND tz = 'UTC') AS utc_days
    GROUP BY day
),
-- Minutes first: every zone's offset is whole minutes, so the costly zone arithmetic meets one row a minute.
request_minutes AS (
    SELECT minute_of(ts) AS minute_number, count(*) AS requests
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    CROSS JOIN (SELECT bucket_size FROM chosen WHERE bucket_size <> 'day' OR tz <> 'UTC') AS other_buckets
    GROUP BY ALL
),
error_minutes AS (
    SELECT
        minute_of(ts) AS minute_number,
        code,
        CASE WHEN code IS NULL THEN gateway_reason END AS gateway_reason,
        count(*) AS errors
    FROM errors_with_previous(since, until, for_org, for_key, for_code, for_route)
    WHERE is_current
    GROUP BY ALL
),
request_buckets AS (
    SELECT bucket_start_of(minute_number, bucket_size, tz) AS bucket_start, bucket_size, sum(requests) AS requests
    FROM (
        SELECT minute_number, requests
        FROM request_days
        UNION ALL
        SELECT minute_number, requests
        FROM request_minutes
    )
    CROSS JOIN chosen
    GROUP BY ALL
),
error_buckets AS (
    SELECT
        bucket_start_of(minute_number, bucket_size, tz) AS bucket_start,
        coalesce(code, gateway_reason, '(no code)') AS label,
        code,
        sum(errors) AS errors
    FROM error_minutes
    CROSS JOIN chosen
    GROUP BY ALL
),
labels AS (
    SELECT DISTINCT label, code
    FROM error_buckets
)
SELECT
    request_buckets.bucket_start,
    request_buckets.bucket_size,
    labels.label,
    labels.code,
    coalesce(error_buckets.errors, 0)::BIGINT AS errors,
    request_buckets.requests::BIGINT AS requests,
    coalesce(error_buckets.errors, 0) / request_buckets.requests AS rate
FROM request_buckets
CROSS JOIN labels
LEFT JOIN error_buckets
    ON error_buckets.bucket_start = request_buckets.bucket_start
    AND error_buckets.label = labels.label
    AND error_buckets.code IS NOT DISTINCT FROM labels.code
ORDER BY request_buckets.bucket_start, labels.label, labels.code NULLS LAST;
