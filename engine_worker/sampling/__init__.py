"""The choice of the next token from a row of logits.

Owns masks, biases and penalties, the sampling chain, the samplers beyond it (`samplers`), the
sampler's own finders of candidates, and the random number of a position. Pure, except `threads` and
`batch`. Never imports the engine, the scheduler, a clock or a binding of llama.cpp; a backend's
finders come through its port.

A new finder implements `backend.candidates.CandidateFinder`, says in its docstring which `k`,
changes and masks it honours, and has an entry: in `BatchSampler`, or in the backend's `finders`.
"""
