"""What a worker may still do once it reads a model: a file from strangers, in a C++ parser.

    needs.py      which files and devices a worker needs for its model. Pure
    landlock.py   the kernel's rules for files and TCP
    syscalls.py   the filter of system calls
    confine.py    puts all of it in force, and says what is and what is not

A worker confines itself between its boot message and its threads: it knows its model by then, and
rules hold for the calling thread and what it starts. What a kernel lacks is left out and named.
"""
