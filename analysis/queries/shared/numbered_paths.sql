-- The last number in a path, of at most 18 digits; NULL where there is none, or the path is not kept.
CREATE OR REPLACE MACRO number_in(path) AS CASE
    WHEN contains(path, '#') THEN NULL
    ELSE nullif(regexp_extract(path, '^(.*?)([0-9]{1,18})([^0-9]*)$', 2), '')::BIGINT
END;

-- The path around that number: paths that agree in it are numbered alike.
CREATE OR REPLACE MACRO around_number_in(path) AS
    regexp_extract(path, '^(.*?)([0-9]{1,18})([^0-9]*)$', 1) || '{n}'
    || regexp_extract(path, '^(.*?)([0-9]{1,18})([^0-9]*)$', 3);
