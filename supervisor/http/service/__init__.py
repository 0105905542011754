"""The routes about the service itself: health, figures, operations."""
