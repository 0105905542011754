"""Workers: started, watched, replaced and stopped. `port.py` is what the rest may know of it."""
