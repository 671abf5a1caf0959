-- A field of a request's body with the places in its arrays folded, however they are written: to[17].phone, to.17.phone
-- and /to/17/phone are to[].phone.
CREATE OR REPLACE MACRO folded_field_of(field) AS replace(regexp_replace(
    regexp_replace(
        CASE
            WHEN starts_with(field, '/') OR starts_with(field, '#/')
                THEN replace(regexp_replace(field, '^#?/', '', 'g'), '/', '.')
            WHEN starts_with(field, '$.') THEN substr(field, 3)
            ELSE field
        END,
        '\[[0-9]+\]', '[]', 'g'
    ),
    '(^|[.])[0-9]+\b', '[]', 'g'
), '.[]', '[]');

-- What is wrong with a field, without the values that the message quotes: '"x" is no number' is '"..." is no number'.
-- From the first quote to the last, as a quoted value may itself hold quotes; an apostrophe inside of a word is none.
CREATE OR REPLACE MACRO folded_issue_of(issue) AS CASE
    WHEN regexp_matches(issue, '(^|[ :=(])''') THEN regexp_replace(
        regexp_replace(issue, '(?s)".*"', '"..."', 'g'), '(?s)''.*''', '"..."', 'g'
    )
    ELSE regexp_replace(issue, '(?s)".*"', '"..."', 'g')
END;
