"""Which SQL the console takes: a grammar of what is allowed, over the syntax tree that DuckDB gives of a statement.

Whatever is not named here is refused, so that a release of DuckDB with new functions or statements opens nothing.
Knows no lake: the relations and macros that may be named are handed over.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

TABLE_FUNCTIONS: Final = frozenset({"range", "generate_series", "unnest"})
"""DuckDB's own table functions that may be called; none of them reads anything."""

_FUNCTIONS_FILE: Final = Path(__file__).with_name("sandbox_functions.txt")
_QUERIES: Final = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_SOURCES: Final = {
    "BASE_TABLE",
    "EMPTY",
    "EXPRESSION_LIST",
    "JOIN",
    "PIVOT",
    "SHOW_REF",
    "SUBQUERY",
    "TABLE_FUNCTION",
}
_MODIFIERS: Final = {
    "ASCENDING",
    "DESCENDING",
    "DISTINCT_MODIFIER",
    "LIMIT_MODIFIER",
    "LIMIT_PERCENT_MODIFIER",
    "ORDER_DEFAULT",
    "ORDER_MODIFIER",
}
_EXPRESSIONS: Final = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "LAMBDA",
    "LAMBDA_REF",
    "OPERATOR",
    "POSITIONAL_REFERENCE",
    "STAR",
    "SUBQUERY",
    "TYPE",
    "WINDOW",
}
_SHOWN: Final = {"DESCRIBE", "SUMMARY"}


class NotAllowedError(Exception):
    """The statement names something that the console does not take; the message says what, on one line."""


def function_names() -> frozenset[str]:
    """DuckDB's scalar, aggregate and window functions that may be called: those that compute from their arguments."""
    lines = _FUNCTIONS_FILE.read_text("utf-8").splitlines()
    return frozenset(name for line in lines if not line.startswith("// ") for name in line.split())


@dataclass(frozen=True)
class Grammar:
    """What a statement may name, in lower case: relations, macros (of tables or of values) and functions."""

    relations: frozenset[str]
    macros: frozenset[str]
    functions: frozenset[str]

    def check(self, tree: dict[str, Any]) -> None:
        """Raises NotAllowedError unless `tree`, of `json_serialize_sql`, is one query of allowed parts alone."""
        if tree["error"]:
            message = str(tree["error_message"])
            raise NotAllowedError(_ONLY_QUERIES if message.startswith("Only SELECT") else message)
        if len(tree["statements"]) != 1:
            raise NotAllowedError(f"expected one statement, found {len(tree['statements'])}; run them one at a time")
        self._visit(tree["statements"][0], frozenset())

    def _visit(self, part: object, ctes: frozenset[str]) -> None:
        """Checks `part` and what is in it; `ctes` are the names that WITH has given to queries by now."""
        if isinstance(part, list):
            for item in part:
                self._visit(item, ctes)
        elif isinstance(part, dict):
            self._check(part, ctes)
            if "cte_map" in part:
                ctes = self._visit_ctes(part, ctes)
            for name, item in part.items():
                if name != "cte_map":
                    self._visit(item, ctes)

    def _visit_ctes(self, query: dict[str, Any], ctes: frozenset[str]) -> frozenset[str]:
        """The names that the body of `query` may use: each CTE sees those before it, a recursive one itself too."""
        if query["type"] == "RECURSIVE_CTE_NODE":
            ctes |= {query["cte_name"].lower()}
        for entry in query["cte_map"]["map"]:
            self._visit(entry["value"], ctes)
            ctes |= {entry["key"].lower()}
        return ctes

    def _check(self, part: dict[str, Any], ctes: frozenset[str]) -> None:
        kind = part.get("class") or part.get("type")
        if "class" in part and kind not in _EXPRESSIONS:
            raise NotAllowedError(f"{_words(kind)} cannot be used in the console")
        if "class" not in part and isinstance(kind, str) and kind not in _QUERIES | _SOURCES | _MODIFIERS:
            raise NotAllowedError(_ONLY_QUERIES if kind.endswith("_NODE") else f"{_words(kind)} cannot be used here")
        if kind == "BASE_TABLE":
            self._check_relation(part, ctes)
        elif kind == "TABLE_FUNCTION":
            self._check_call(part["function"], TABLE_FUNCTIONS | self.macros, "table function")
        elif kind in ("FUNCTION", "WINDOW"):
            self._check_call(part, self.functions | self.macros | TABLE_FUNCTIONS, "function")
        elif kind == "SHOW_REF" and (part["show_type"] not in _SHOWN or part["query"] is None):
            raise NotAllowedError(f"SHOW cannot be used in the console; there are: {', '.join(sorted(self.relations))}")

    def _check_relation(self, part: dict[str, Any], ctes: frozenset[str]) -> None:
        path = part["qualified_name"]["path"]
        if len(path) == 1 and path[0].lower() in self.macros - ctes:
            raise NotAllowedError(f"{path[0]} takes parentheses; write {path[0]}()")
        if len(path) != 1 or path[0].lower() not in self.relations | ctes or part["at_clause"] is not None:
            raise NotAllowedError(
                f"there is no table {'.'.join(path)!r}; there are: {', '.join(sorted(self.relations))}"
            )

    def _check_call(self, call: dict[str, Any], allowed: frozenset[str], what: str) -> None:
        path = call["qualified_name"]["path"]
        if len(path) != 1 or path[0].lower() not in allowed:
            name = ".".join(path)
            meant = get_close_matches(name.lower(), allowed, n=1, cutoff=0.8)
            remedy = f"; did you mean {meant[0]}?" if meant else ""
            raise NotAllowedError(f"the {what} {name!r} cannot be used in the console{remedy}")


_ONLY_QUERIES: Final = (
    "only a query can be run: SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, or a PIVOT whose values are listed "
    "(ON column IN ('a', 'b'))"
)


def _words(kind: object) -> str:
    return str(kind).lower().replace("_", " ")
