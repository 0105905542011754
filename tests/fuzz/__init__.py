"""Random and hostile inputs against one part at a time.

python -m tests.fuzz.prompts            a few prompts for each pre-tokenizer
python -m tests.fuzz.prompts --full     10,000 prompts over all of them
"""
