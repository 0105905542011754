"""Which tokens are guessed ahead, and how many.

Owns drafters (prompt lookup, a draft model) and the policies that decide when drafts pay. Pure,
except `draft_model`, which drives a backend of its own. Never imports a clock, a thread, a socket
or the engine.
"""
