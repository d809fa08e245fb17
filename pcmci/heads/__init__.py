"""Phase two: from a feature store to runs, their scores and tables."""
