-- Whole minutes from 1970 to a moment.
CREATE OR REPLACE MACRO minute_of(moment) AS epoch_us(moment) // 60000000;

-- What a clock in zone `tz` shows at a moment, without the zone.
CREATE OR REPLACE MACRO local_time_of(moment, tz) AS moment AT TIME ZONE tz;

-- The moment at which a clock in zone `tz` shows a time.
CREATE OR REPLACE MACRO moment_of(local_time, tz) AS local_time AT TIME ZONE tz;

-- First moment of the bucket (minute, hour, day) of zone `tz` that holds a minute of minute_of(). Hours step back
-- from the moment itself: the hour that a zone repeats when its clocks go back stays two buckets.
CREATE OR REPLACE MACRO bucket_start_of(minute_number, bucket_size, tz) AS CASE bucket_size
    WHEN 'minute' THEN make_timestamptz(minute_number * 60000000)
    WHEN 'hour' THEN make_timestamptz(
        (minute_number - extract(minute FROM local_time_of(make_timestamptz(minute_number * 60000000), tz))) * 60000000
    )
    WHEN 'day' THEN moment_of(date_trunc('day', local_time_of(make_timestamptz(minute_number * 60000000), tz)), tz)
END;
