"""From a request's prompt to tokens.

Owns the queue of prompts, chat templates (in a disposable process), and tokenizing: in safe pieces
here, otherwise in a disposable process. Runs in the prepare threads. Never imports the engine, the
scheduler, the KV cache or a binding of llama.cpp.
"""
