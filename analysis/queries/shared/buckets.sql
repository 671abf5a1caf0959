-- Whole minutes from 1970 to a moment.
CREATE OR REPLACE MACRO minute_of(moment) AS epoch_us(moment) // 60000000;

-- First moment of the bucket (minute, hour, day) of zone `tz` that holds a minute of minute_of(). Hours step back
-- from the moment itself: the hour that a zone repeats when its clocks go back stays two buckets.
CREATE OR REPLACE MACRO bucket_start_of(minute_number, bucket_size, tz) AS CASE bucket_size
    WHEN 'minute' THEN make_timestamptz(minute_number * 60000000)
    WHEN 'hour' THEN make_timestamptz(
        (minute_number - extract(minute FROM make_timestamptz(minute_number * 60000000) AT TIME ZONE tz)) * 60000000
    )
    WHEN 'day' THEN date_trunc('day', make_timestamptz(minute_number * 60000000) AT TIME ZONE tz) AT TIME ZONE tz
END;
