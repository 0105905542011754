"""A scripted backend without a model, for tests of everything around the model.

Owns a text that depends on every computed token, and faults on command, in the engine and on the
link. Never imports sampling or llama.cpp.
"""
