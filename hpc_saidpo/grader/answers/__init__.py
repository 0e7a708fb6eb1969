"""Response text + gold answer -> correct, wrong or ungradable.

Model output is hostile input. It is compared as text, as exact rationals, and by the values of a small grammar; none of
it is evaluated. The package `grader` adds a library that knows more mathematics, in a process of its own, and the
verifiers for other domains.
"""
