-- What a message quotes of the key that was presented, masked in the middle or at an end: sk_live_…9f2c, abcd****. NULL
-- where it quotes none. Two keys may look the same so.
CREATE OR REPLACE MACRO masked_key_of(message) AS
    nullif(regexp_extract(message, '[A-Za-z0-9_-]*(?:…|\.\.\.|\*\*+)[A-Za-z0-9_-]*', 0), '');

-- Does a message quote a key that is only the name or an example of one? YOUR_API_KEY, also masked (YOUR_API…_KEY), and
-- in quotes or masked what an empty variable turns into (undefined, null).
CREATE OR REPLACE MACRO quotes_placeholder(message) AS coalesce(
    regexp_matches(lower(message), '(^|[^a-z0-9])your[_-](api|secret|access|auth|key|token)')
    OR regexp_matches(
        lower(message),
        '[^a-z0-9](undef[a-z]*|null|none|nil|nan|your[_-][a-z_-]*|example[a-z_-]*|dummy[a-z_-]*|change[_-]?me'
        '|insert[_-][a-z_-]*|replace[_-][a-z_-]*|placeholder[a-z_-]*|api[_-]?key|xxx+|object [a-z]*)(…|\.\.\.|\*\*)'
    )
    OR regexp_matches(
        lower(message),
        '["''`(<\[{](undefined|null|none|nil|nan|example[a-z_-]*|dummy[a-z_-]*|change[_-]?me|insert[_-][a-z_-]*'
        '|replace[_-][a-z_-]*|placeholder[a-z_-]*|xxx+|object object)["''`)>\]}]'
    ),
    false
);
