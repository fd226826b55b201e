"""The range: boots real KVM hosts in emulation, plants harmless tampering, yields memory images and the truth of them.

It does not judge. Nothing here shares code with the readers and walkers that it serves to test: addresses are
translated, symbols looked up and objects found in ways of its own.
"""
