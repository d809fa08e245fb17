"""Heads that are not the paper's, one a file, to compare with it on the same cached features."""
