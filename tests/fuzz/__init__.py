"""Random and hostile inputs against one part at a time.

python -m tests.fuzz.prompts            a few prompts for each pre-tokenizer
python -m tests.fuzz.prompts --full     10,000 prompts over all of them
python -m tests.fuzz.requests HOST PORT malformed HTTP requests against a front that runs
scripts/fuzz TARGET                     messages, headers of model files, bodies, frames, access,
                                        answers, guided by coverage
"""
