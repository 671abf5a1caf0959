-- So many seconds before `until`, or before the end of the data where it is not given; UTC.
CREATE OR REPLACE MACRO looked_back(until, seconds_back) AS make_timestamp(
    coalesce(epoch_us(utc_moment(until)), epoch_us(data_through()) + 1) - seconds_back::BIGINT * 1000000
);
