"""The table of architectures: each tiny model in the engine and in services, by llama.cpp alone.

`python -m tests.models.table` computes it and writes it into a results file. None of this is a
test: the tests of `tests/models` and `tests/e2e` hold the same promises with shorter answers.
"""
