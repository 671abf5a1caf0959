"""What is done in Python to the rows of a question's macro: one module per such question, named like it.

Each has `judge(evidence, parameters)` of the type `analysis.question.Judge`. Knows statistics and sentences; knows no
lake and no SQL.
"""
