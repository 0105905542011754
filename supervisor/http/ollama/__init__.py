"""Ollama's API: `/api/…`. Streams are JSON objects, one a line. `API.md` has the fields."""
