"""Rows of results to what people look at."""
