"""From a request's fields to one internal request, and its stream back to a dialect's answer.

The fields are OpenAI's, with llama-server's and vLLM's names for more. A dialect package fills them
and implements `dialect.Dialect`; none has another way to the engine.
"""
