"""Tables as people have them: CSV of any quoting, Parquet, JSON arrays, Arrow; rows of one picture, a split column."""
