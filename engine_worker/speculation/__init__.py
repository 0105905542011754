"""Speculative decoding: which tokens are drafted for a sequence, and how many are verified.

Owns the drafters (prompt lookup, a draft model) and the policies that decide when drafts pay. The
package is pure, except for `draft_model`, which drives its own backend and times it. It never
imports a socket, a thread or the engine.
"""
