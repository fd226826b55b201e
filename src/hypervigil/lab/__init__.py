"""The range: boots real hypervisors in emulation and plants harmless tampering.

It yields memory images with the truth about them. It does not judge.
"""
