"""The network client: this front as a machine of a GPUFabric network.

`messages` and `codec` are the wire protocol. Nothing here is imported unless the configuration
names a control server.
"""
