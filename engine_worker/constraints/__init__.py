"""Guided decoding: constraints on the text of an answer.

Owns the way from a schema or grammar to a mask of the vocabulary for each row of logits. A grammar
is compiled in a disposable process first. Never imports the engine, the scheduler or llama_cpp;
`llg` alone imports llguidance.
"""
