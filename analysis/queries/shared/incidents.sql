-- Are there more faults than chance has: five standard deviations and `least` above what is expected, and a multiple?
CREATE OR REPLACE MACRO is_beyond(observed, expected, least, factor) AS
    observed >= expected + 5 * sqrt(expected) + least AND observed >= factor * expected;
