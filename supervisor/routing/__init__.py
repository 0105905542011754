"""Which worker of a model a sequence goes to, and which model a request goes to during a canary.

Owns the strategies by name, the account of each worker's open work, and the rules of a canary.
Does not own workers, queues or messages: `supervisor.dispatch` applies the choices. Pure.
"""
