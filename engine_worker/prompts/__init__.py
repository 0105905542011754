"""From a request's prompt to tokens.

Owns chat templates, which run in a disposable process, and tokenizing. Runs in the prepare thread.
Never imports the engine, the scheduler, the KV cache or a binding of llama.cpp.
"""
