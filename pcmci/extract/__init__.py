"""Phase one: videos and annotations to a feature store."""
