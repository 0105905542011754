"""Tiny random models of many architectures, and llama.cpp alone as their reference."""
