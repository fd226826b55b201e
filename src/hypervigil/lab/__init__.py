"""The range: boots real hypervisors in emulation, plants harmless tampering, saves image and truth. It does not judge."""
