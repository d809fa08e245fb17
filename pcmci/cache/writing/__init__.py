"""The one writer of a store: its right to write, its journal, and what it puts where."""
