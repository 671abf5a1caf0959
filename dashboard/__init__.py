"""The answers on a screen. Knows Streamlit; holds no SQL: everything that it shows is `analysis.answer(...)`."""
