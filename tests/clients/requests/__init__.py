"""Requests in the forms that public clients send, one module a dialect, and what each needs.

`tests.integration.test_dialect_requests` sends them to the scripted engine, and
`tests.e2e.test_dialect_requests` to the demo model.
"""
