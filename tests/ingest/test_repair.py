"""JSON that hand-made templates break is what it was meant to be again, or is given up; never something else."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.repair import begun_again, repaired


def shown(text: str) -> str:
    """The start of `text`, as the id of a case."""
    return repr(text[:24])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (r'{"a":"\x22x\x22"}', {"a": '"x"'}),
        (r'{"a":"\xC3\xA9"}', {"a": "é"}),
        (r'{"a":"\xE9"}', {"a": "\udce9"}),
        (r'{"a":"\x5Cx22"}', {"a": r"\x22"}),
        (r'{"a":"\\x22","b":-}', {"a": r"\x22", "b": None}),
        (r'{"a":"{\x22b\x22:\x22c\x22}"}', {"a": '{"b":"c"}'}),
        ('{"a":-,"b":1}', {"a": None, "b": 1}),
        ('{"b":1,"a": - }', {"a": None, "b": 1}),
        ('{"a":,"b":1}', {"a": None, "b": 1}),
        ('{"b":1,"a":}', {"a": None, "b": 1}),
        ('{"a":502, 504 : 200,"b":1}', {"a": "502, 504 : 200", "b": 1}),
        ('{"a":-, 0.004,"b":-5}', {"a": "-, 0.004", "b": -5}),
        ('{"a":10.000, -,"b":1}', {"a": "10.000, -", "b": 1}),
        ('{"a":"x: -, y","b":-}', {"a": "x: -, y", "b": None}),
        ('{"a":"he said "hi" to all","b":1}', {"a": 'he said "hi" to all', "b": 1}),
        ('{"a":{"b":-},"c":[1]}', {"a": {"b": None}, "c": [1]}),
        ('{"a":"one\ttwo","b":-}', {"a": "one\ttwo", "b": None}),
        ('{"a":1,"n":-,"a":2}', {"a": 1, "n": None}),
    ],
)
def test_damage_of_a_known_kind_is_undone(text: str, meant: dict[str, Any]) -> None:
    assert repaired(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "{",
            '{"a":"x","b":',
            '{"a":"x","b":"y',
            '{"a":1',
            "[1]",
            '{"a":1,}',
            "{'a':1}",
            '{"a":"x":-}',
            '{"a":01}',
        ),
        *('{"a":"{"b":"c"}","d":1}', '{"a":1}}', '{"a":' * 100_000, "{" * 100, '{"a":-} trailing'),
        *('{"a":1,"b":"x{"a":2,"b":"y"}', '{"a":1,"st{"a":2,"b":"y"}', '{"a":{"a":2,"b":"x"}', '{"a":1,{"a":2,"n":-}'),
    ],
    ids=shown,
)
def test_what_cannot_be_told_is_given_up(text: str) -> None:
    assert repaired(text) is None


VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(max_size=5), VALUES, max_size=4), is_ascii=st.booleans())
def test_json_that_is_not_broken_stays_what_it_is(value: dict[str, Any], is_ascii: bool) -> None:
    assert repaired(json.dumps(value, ensure_ascii=is_ascii)) == value


NGINX_ESCAPES: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def nginx_escaped(text: str) -> str:
    """`text` as nginx writes it with escape=default: but printable ASCII without quotes and backslashes in hex."""
    return "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02X}" for byte in text.encode()
    )


@given(values=st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), NGINX_ESCAPES, min_size=1, max_size=5))
def test_what_nginx_escapes_by_default_comes_back_whatever_a_client_sent(values: dict[str, str]) -> None:
    line = "{" + ",".join(f'"{name}":"{nginx_escaped(value)}"' for name, value in values.items()) + ',"-":-}'

    assert repaired(line) == values | {"-": None}


@given(
    text=st.text()
    | st.lists(st.sampled_from(['"', "{", "}", ":", ",", "\\", "\\x22", "-", "1", " ", "a"])).map("".join)
)
def test_no_text_makes_it_raise(text: str) -> None:
    assert isinstance(repaired("{" + text), dict | None)
    assert text.endswith(begun_again(text))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('{"a":1,"b":"x{"a":2}', '{"a":2}'),
        ('{"a":1,"b":{"a":2}', '{"a":2}'),
        ('{"a":1,"b{"a":2,"b{"a":3}', '{"a":3}'),
        ('{ "a" : 1{ "a" : 2', '{ "a" : 2'),
        ('{"a":1,"b":"x{"b":2}', ""),
        ('{"a":1}', ""),
        (r'{"a":"{\"a\":2}', ""),
        ("text", ""),
        ("", ""),
    ],
)
def test_a_record_behind_a_torn_one_starts_with_the_same_key(text: str, rest: str) -> None:
    assert begun_again(text) == rest


# Each of these took from a second to a minute and a half when a part of it was searched again for each other part.
@pytest.mark.parametrize(
    "text",
    [
        *('{"a":' + " " * 65_000, '{"a":"' * 10_000, '"' * 65_000, '{"a' + '" ' * 2000, '{"a":' + "1," * 30_000),
        *("{" + ":-, " * 16_000, '{"a":"' + "\\" * 65_000, '{"a":"' + "\\x22" * 16_000, '{"' + 'a"b' * 1300),
    ],
    ids=shown,
)
def test_hostile_text_is_given_up(text: str) -> None:
    assert repaired(text) is None
