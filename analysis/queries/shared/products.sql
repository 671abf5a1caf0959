-- The software that a User-Agent names: the first product with a version, 'name/1.2', 'name v1.2' or 'name 1.2', behind
-- "compatible;" where it calls itself Mozilla; else its first word. NULL where there is none.
CREATE OR REPLACE MACRO product_of(user_agent) AS coalesce(
    nullif(regexp_extract(
        user_agent, '^Mozilla/[0-9.]+ [(]compatible; *([A-Za-z][A-Za-z0-9._+-]*)[/ ][vV]?[0-9][A-Za-z0-9._+-]*', 1
    ), ''),
    nullif(regexp_extract(user_agent, '([A-Za-z][A-Za-z0-9._+-]*)[/ ][vV]?[0-9][A-Za-z0-9._+-]*', 1), ''),
    nullif(regexp_extract(user_agent, '^ *([A-Za-z][A-Za-z0-9._+-]*)', 1), '')
);

-- The version of that software; NULL where the User-Agent names none.
CREATE OR REPLACE MACRO product_version_of(user_agent) AS coalesce(
    nullif(regexp_extract(
        user_agent, '^Mozilla/[0-9.]+ [(]compatible; *[A-Za-z][A-Za-z0-9._+-]*[/ ][vV]?([0-9][A-Za-z0-9._+-]*)', 1
    ), ''),
    nullif(regexp_extract(user_agent, '[A-Za-z][A-Za-z0-9._+-]*[/ ][vV]?([0-9][A-Za-z0-9._+-]*)', 1), '')
);

-- Text that sorts as versions do: 2.9.4 before 2.10.0, and 3.0.0-beta.1 before 3.0.0.
CREATE OR REPLACE MACRO version_order_of(version) AS
    lpad(regexp_extract(version, '^([0-9]+)', 1), 12, '0')
    || lpad(regexp_extract(version, '^[0-9]+[.]([0-9]+)', 1), 12, '0')
    || lpad(regexp_extract(version, '^[0-9]+[.][0-9]+[.]([0-9]+)', 1), 12, '0')
    || lpad(regexp_extract(version, '^[0-9]+[.][0-9]+[.][0-9]+[.]([0-9]+)', 1), 12, '0')
    || CASE WHEN regexp_matches(version, '^[0-9.]+[-_]?[A-Za-z]') THEN '0' ELSE '1' END
    || version;
