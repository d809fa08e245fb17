"""Videos, annotations and stores that lie on a server."""
