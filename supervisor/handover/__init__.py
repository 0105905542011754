"""One front replaced by another one while both its clients and its workers stay (DESIGN.md)."""
