"""Confinement of code that nobody has read: a function of a response, under tests, in separate processes.

A run starts one such process per response (`grader.code`), with `python -I -S`: every file here imports the standard
library alone. That process becomes three. One runs the response's code (`response`), another one the tests (`tests`),
and the first one waits for the verdict (`process`). A call in the tests is a request to the response's process over a
pipe, with plain values (`values`). The response's code sees the arguments of calls and nothing else: neither the tests
nor the verdict are in its memory, so only right values pass.

The kernel confines both (`box`): limits of CPU time, memory, processes and files; namespaces without network, without
anything to write to, and with nothing to read except Python's library (`libraries`); few system calls (`syscalls`); no
privileges. This does not defend against holes in the kernel itself, and does not hide the hardware; and the tests are
trusted.
"""
