"""Response text + gold answer -> correct, wrong or ungradable.

Model output is hostile input. It is compared as text, as exact rationals, and by the values of a small grammar; none of
it is evaluated. The package `grader` adds a library with more mathematics, in a separate process, and the verifiers for
other domains.
"""
