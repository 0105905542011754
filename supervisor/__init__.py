"""The front: the only process that clients, operators and the network see.

It never imports the engine, llama_cpp or numpy, and stays up whatever a worker does.
"""
