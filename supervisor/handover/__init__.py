"""Replaces a front by another one while clients and workers stay. See DESIGN.md."""
