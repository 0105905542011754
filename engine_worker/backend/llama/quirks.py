"""Architectures that llama.cpp treats in a way of its own. Pure.

Found by computing sequences together and alone with a small model of each architecture that
llama.cpp can write (version 0.3.36 of its bindings).
"""

ONE_A_PASS = frozenset({"plamo2"})
"""In a pass with several sequences the graph of PLaMo 2 writes their states to wrong places. Behind
the end of all states this aborts the process; before it, other sequences get wrong states. It also
exchanges tokens of sequences that have several each."""

ALWAYS_STREAMS = frozenset({"deepseek4", "qwen4exp"})
"""DeepSeek 4 has a KV stream for each sequence also where one cache is asked for, each as large as
the whole cache. In one cache the indexer of Qwen 4 chooses cells for a sequence by what others have
there: behind more tokens than it may choose, logits depend on other sequences."""

NO_EMBEDDINGS = frozenset({"deepseek4", "qwen4exp"})
"""Architectures with several copies of the residual stream (hyper-connections). llama.cpp reads
vectors as long as all copies, and its graph makes them as long as one: it ends the process."""
