"""What the study found, in words; every number in them is looked up in the rows."""

from __future__ import annotations

from evidence.book import Book


def advice(book: Book) -> list[str]:
    return []


def found(book: Book) -> list[str]:
    return []


def of_diagram(book: Book, confounder: str) -> list[str]:
    return []


def expectations(book: Book) -> list[str]:
    return []


def limits(book: Book) -> list[str]:
    return []


def steps(book: Book) -> list[str]:
    return []
