"""From a choice's text to its typed parts: text, reasoning, tool calls, the end.

Owns the parts that a choice can gain (`parts.py`), the port of the parsers that make them
(`parser.py`), the parsers of the families of models (`parsers/`), and the whole answer that the
parts add up to (`whole.py`). Pure: imports no clock, socket or thread, and neither dispatch nor a
client's dialect.
"""
