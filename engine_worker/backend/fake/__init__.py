"""A scripted engine without a model, for tests of everything around it.

Owns a text that depends on every token computed, and faults on command, in the engine and on the
link. Imports neither numpy-heavy sampling nor llama.cpp.
"""
