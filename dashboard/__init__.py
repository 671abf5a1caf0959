"""The answers on a screen. Knows Streamlit; holds no SQL: everything that it shows is `analysis.answer(...)`."""

from typing import Final

LAKE_VARIABLE: Final = "ERRATA_LAKE"
"""The variable of the environment that holds the folder of the lake, from the command to the pages."""

CATALOG_VARIABLE: Final = "ERRATA_CATALOG"
"""The one that holds the path of another error catalogue, where one was given."""

AUTH_VARIABLE: Final = "ERRATA_AUTH"
"""The one that holds the path of the file that says who may sign in, where sign-in is asked for."""
