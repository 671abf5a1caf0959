"""Laws that hold whatever happens to logs and to the lake, in whatever order."""
