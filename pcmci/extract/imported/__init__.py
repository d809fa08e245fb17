"""Features that were made elsewhere: read from their files, and made a store."""
