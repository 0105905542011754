"""llama.cpp's samplers by name: a module for each that is more than a step of `sampling.chain`.

`table` has an entry for each name and puts a request's samplers in their order. `row_chain` runs
them where they are not a plain chain: one row by itself, so that rows without them lose nothing.

To add a sampler, add its parameters to `gpufc.sampling`, its module here and its entry to
`table.MAKERS`. It implements one of the ports in `port`, or is a `Shared` step of the chain. To
remove it is to delete these. What it may use besides the row is `port.Moment`: the history, random
numbers of the position, and the state that the sequence's log has.
"""
