"""Anthropic's Messages: a translation into `ChatFields`, and out of the parts of an answer."""
