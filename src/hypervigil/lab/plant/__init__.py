"""Planters: each changes one thing in a running host from outside and says what it changed.

A planter is `function(machine, **parameters) -> Planted`; a scenario file names it as "module.function". All are
harmless: calls pass through to where they went before, nothing is concealed from the host's owner, nothing leaves the
emulated machine. Nothing is found through the product's own readers.
"""
