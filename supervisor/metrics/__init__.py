"""The series of `/metrics`, made from figures that others own. Pure.

`figures` has the input, `families` makes the series (`requests`, `machine`), `vllm` repeats some
under vLLM's names, and `exposition` writes the text. Only `figures` may be imported at start. The
others load `prometheus_client`, and a front that is never scraped saves that memory.
"""
