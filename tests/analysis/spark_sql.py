"""The macros in the SQL of Spark 4: what sqlglot makes of them, and what it has to be told.

A table macro, question or shared, becomes a table function in SQL: `CREATE FUNCTION name(parameter TYPE DEFAULT value,
...) RETURNS TABLE RETURN query`. Spark wants the types of parameters: a question's are told by their defaults, a shared
macro's by TYPES. A scalar macro is put in where it is called, as DuckDB does it: a function of Spark could hold no
aggregate. The session's time zone is UTC, as DuckDB's is. Of a table function's ORDER BY Spark promises nothing:
whoever calls it sorts again.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import sqlglot
from sqlglot import ErrorLevel, Token, TokenType, exp
from sqlglot.errors import UnsupportedError

import analysis
from analysis.question import FOLDER

# Functions of DuckDB that sqlglot leaves as they stand, and the one of Spark that does the same.
FUNCTIONS: Final = {
    "epoch_us": "unix_micros",
    "error": "raise_error",
    "make_timestamptz": "timestamp_micros",
}
# Macros that mean another expression in Spark: AT TIME ZONE goes to and fro by a type that sqlglot does not know.
BODIES: Final = {
    "local_time_of": "FROM_UTC_TIMESTAMP(moment, tz)",
    "moment_of": "TO_UTC_TIMESTAMP(local_time, tz)",
}
TYPES: Final = {
    "for_code": "STRING",
    "for_key": "STRING",
    "for_org": "STRING",
    "for_route": "STRING",
    "max_gap_s": "DOUBLE",
    "merge_gap_s": "DOUBLE",
    "refusal_code": "STRING",
    "since": "TIMESTAMP_NTZ",
    "until": "TIMESTAMP_NTZ",
}


@dataclass(frozen=True)
class Macro:
    """One macro, a question or shared: the names of its parameters, and its body in DuckDB's SQL."""

    path: Path
    name: str
    parameters: tuple[str, ...]
    is_table: bool
    body: str


def macros(folder: Path = FOLDER) -> dict[str, Macro]:
    """Every macro of every file, by name."""
    return {macro.name: macro for path in sorted(folder.rglob("*.sql")) for macro in _read(path)}


def to_spark(macro: Macro, scalars: Mapping[str, Macro]) -> str:
    """What `macro` is in Spark, `scalars` put in: of a table macro the statement that makes it a function, else the
    expression. Raises UnsupportedError where sqlglot would give it another meaning, and what sqlglot raises."""
    tree = _with_scalars(_corrected(macro), scalars)
    _refuse_mixed_aggregates(tree, macro.parameters)
    body = tree.sql("spark", unsupported_level=ErrorLevel.RAISE, pretty=True, comments=False)
    if not macro.is_table:
        return body
    return f"CREATE FUNCTION {macro.name}({', '.join(_declared(macro))})\nRETURNS TABLE\nRETURN {body}"


def called(sql: str, dialect: str) -> set[str]:
    """The names that an opening parenthesis follows in `sql`, in lower case: functions, macros and words of SQL. An
    alias whose columns are named so is left out."""
    aliases = {alias.name.lower() for alias in _parsed(sql, dialect).find_all(exp.TableAlias)}
    return {
        token.text.lower()
        for token, following in pairwise(sqlglot.tokenize(sql, read=dialect))
        if following.token_type == TokenType.L_PAREN and token.text.isidentifier()
    } - aliases


def _read(path: Path) -> Iterator[Macro]:
    sql = path.read_text("utf-8")
    statement: list[Token] = []
    for token in sqlglot.tokenize(sql, read="duckdb"):
        if token.token_type == TokenType.SEMICOLON:
            yield _macro(path, sql, statement)
            statement = []
        else:
            statement.append(token)


def _macro(path: Path, sql: str, statement: list[Token]) -> Macro:
    """The macro of `CREATE OR REPLACE MACRO name(parameters) AS [TABLE] body`."""
    words = [token.text.upper() for token in statement]
    begin = words.index("AS") + 1
    is_table = words[begin] == "TABLE"
    name = statement[4].text
    if name in analysis.questions():
        parameters = [parameter.name for parameter in analysis.questions()[name].parameters]
    else:
        parameters = [token.text for token in statement[6 : begin - 2] if token.token_type != TokenType.COMMA]
    body = sql[statement[begin + is_table].start : statement[-1].end + 1]
    return Macro(path, name, tuple(parameters), is_table, body)


def _declared(macro: Macro) -> Iterator[str]:
    """Each parameter of a table macro with its type and, of a question, its default."""
    question = analysis.questions().get(macro.name)
    for parameter in question.parameters if question else ():
        sql_type = exp.DataType.build(parameter.sql_type, dialect="duckdb").sql("spark")
        yield f"{parameter.name} {sql_type} DEFAULT {_parsed(parameter.default).sql('spark')}"
    for name in () if question else macro.parameters:
        if name not in TYPES:
            raise UnsupportedError(f"{macro.name}: Spark asks for the type of {name}: tell it in TYPES of {__name__}")
        yield f"{name} {TYPES[name]}"


def _parsed(sql: str, dialect: str = "duckdb") -> exp.Expr:
    tree: exp.Expr = sqlglot.parse_one(sql, read=dialect, error_level=ErrorLevel.RAISE)
    return tree


def _rewritten(tree: exp.Expr, change: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """`tree` with each node changed, the inner ones first."""
    for node in reversed(list(tree.bfs())):
        changed = change(node)
        if node is tree:
            tree = changed
        elif changed is not node:
            node.replace(changed)
    return tree


def _with_scalars(tree: exp.Expr, scalars: Mapping[str, Macro]) -> exp.Expr:
    """`tree` with the bodies of scalar macros in the place of their calls."""

    def put_in(node: exp.Expr) -> exp.Expr:
        macro = scalars.get(node.name.lower()) if isinstance(node, exp.Anonymous) else None
        if macro is None:
            return node
        given = [
            expression if isinstance(expression, exp.Column | exp.Literal) else exp.paren(expression)
            for expression in node.expressions
        ]
        arguments = dict(zip(macro.parameters, given, strict=True))
        body = _rewritten(
            _with_scalars(_corrected(macro), scalars),
            lambda inner: (
                arguments.get(inner.name, inner) if isinstance(inner, exp.Column) and not inner.table else inner
            ),
        )
        return exp.paren(body, copy=False)

    return _rewritten(tree, put_in)


def _corrected(macro: Macro) -> exp.Expr:
    """The body of `macro` as sqlglot must have it to say in Spark what DuckDB means."""
    if macro.name in BODIES:
        return _parsed(BODIES[macro.name], "spark")
    return _rewritten(_parsed(macro.body), _correct)


def _refuse_mixed_aggregates(tree: exp.Expr, parameters: tuple[str, ...]) -> None:
    """Spark knows no aggregate, save in a window, over a column and a parameter of the function at once."""
    for aggregate in tree.find_all(exp.AggFunc):
        whole = aggregate.parent if isinstance(aggregate.parent, exp.Filter) else aggregate
        columns = {column.name for column in whole.find_all(exp.Column)}
        given = columns & set(parameters)
        if given and columns - given and not isinstance(whole.parent, exp.Window):
            raise UnsupportedError(
                f"{whole.sql('duckdb')}: make what depends on {', '.join(given)} a column of its own first"
            )


def _refuse_regex(node: exp.Expr) -> None:
    """Java's expressions are RE2's, but for these."""
    if re.search(r"(?<!\\)\[\^?(\[|\])", node.expression.name):
        raise UnsupportedError(f"{node.expression.sql('duckdb')}: escape a bracket within brackets, or use none")
    if isinstance(node, exp.RegexpReplace):
        if "g" not in node.text("modifiers"):
            raise UnsupportedError(f"{node.sql('duckdb')}: DuckDB replaces once and Spark all; ask for all with 'g'")
        if re.search(r"[\\$]", node.text("replacement")):
            raise UnsupportedError(f"{node.sql('duckdb')}: groups in a replacement are written in another way")


def _correct(node: exp.Expr) -> exp.Expr:
    match node:
        case exp.RegexpReplace() | exp.RegexpLike() | exp.RegexpExtract():
            _refuse_regex(node)
        case exp.WindowSpec() if any(isinstance(node.args[side], exp.Column | exp.Func) for side in ("start", "end")):
            raise UnsupportedError(f"{node.sql('duckdb')}: a frame is bounded by literals")
        case exp.Anonymous() if node.name.lower() in FUNCTIONS:
            return exp.Anonymous(this=FUNCTIONS[node.name.lower()], expressions=node.expressions)
        case exp.PercentileCont():
            return exp.Anonymous(this="percentile", expressions=[node.this, node.expression])
        case exp.AtTimeZone() if node.args["zone"] != exp.Literal.string("UTC"):
            raise UnsupportedError(f"{node.sql('duckdb')}: take local_time_of() or moment_of()")
        case exp.GroupConcat():
            raise UnsupportedError(f"{node.sql('duckdb')}: take array_to_string(list(...), ...)")
        case exp.Filter(this=exp.ArrayAgg(this=exp.Order() as order)):
            return _sorted(order, node.expression)
        case exp.ArrayAgg(this=exp.Order() as order) if not isinstance(node.parent, exp.Filter):
            return _sorted(order, None)
    return node


def _sorted(order: exp.Order, condition: exp.Expr | None) -> exp.Expr:
    """What `list(item ORDER BY key, ...)` is in Spark, whose lists have no order until they are sorted; an empty one
    becomes the NULL that DuckDB gives. Keys must not be NULL."""
    if any(key.args.get("desc") for key in order.expressions):
        raise UnsupportedError(f"list({order.sql('duckdb')}): Spark sorts a list up alone; order it by a row's number")
    keys = [exp.alias_(key.this, f"key_{place}") for place, key in enumerate(order.expressions)]
    listed: exp.Expr = exp.ArrayAgg(this=exp.Struct(expressions=[*keys, exp.alias_(order.this, "item")]))
    if condition:
        listed = exp.Filter(this=listed, expression=condition)
    sorted_list = f"NULLIF(TRANSFORM(ARRAY_SORT({listed.sql('spark')}), entry -> entry.item), ARRAY())"
    return _parsed(sorted_list, "spark")
