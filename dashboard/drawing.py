"""Charts on the page, as high as they need to be."""

from typing import Final

import altair as alt
import pandas as pd
import pyarrow as pa
import streamlit as st

_HEIGHT: Final = 380


def show(chart: alt.Chart | None, label: str, *, height: int = _HEIGHT) -> None:
    """Draws `chart`, if there is one, in its own colours; `height` is that of a chart whose bars have no height."""
    if chart is None:
        return
    # Streamlit fits the legend and the axes into the height of the chart, which was meant for the marks alone.
    fitted = chart if isinstance(chart.height, alt.Step) else chart.properties(height=height)
    st.altair_chart(fitted, theme=None, alt=label)


def frame(rows: pa.Table) -> pd.DataFrame:
    """`rows` as a chart takes them: without lists and structures, which no chart draws."""
    drawable = [field.name for field in rows.schema if not pa.types.is_nested(field.type)]
    drawn: pd.DataFrame = rows.select(drawable).to_pandas()
    return drawn
