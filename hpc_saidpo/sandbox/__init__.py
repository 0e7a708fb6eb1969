"""Where code that nobody has read runs: a function of a response under tests, in processes of their own.

A run starts one such process per response (`grader.code`), with `python -I -S`: everything here imports the standard
library alone. Two processes come of it. One runs the response's code (`response`), the other one the tests (`tests`):
what a test calls is asked of the first over a pipe, as plain values (`values`). The response's code sees the arguments
of calls and nothing else: neither tests nor verdict are in its memory, so that it can pass by right values only.

Both are confined by the kernel (`box`): limits of CPU time, memory, processes and files; namespaces without network,
without anything to write to, and with nothing to read but Python's own library; no privileges. It does not defend
against holes in the kernel itself, nor hide what the hardware is; and the tests are believed.
"""
