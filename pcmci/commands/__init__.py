"""The commands, one a file: parse, one call, show the answer; and what they share in doing so."""
