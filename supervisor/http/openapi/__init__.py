"""The API's own description: OpenAPI 3.1, made from the table of routes, and a page of it."""
