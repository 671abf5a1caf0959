"""Charts on the page, as high as they need to be."""

import altair as alt
import streamlit as st

_HEIGHT = 380


def show(chart: alt.Chart | None, label: str, *, height: int = _HEIGHT) -> None:
    """Draws `chart`, if there is one, in its own colours; `height` is that of a chart whose bars have no height."""
    if chart is None:
        return
    # Streamlit fits the legend and the axes into the height of the chart, which was meant for the marks alone.
    fitted = chart if isinstance(chart.height, alt.Step) else chart.properties(height=height)
    st.altair_chart(fitted, theme=None, alt=label)
