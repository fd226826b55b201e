"""The vocabulary that every layer shares: units, evidence, facts, findings, the report, errors.

Standard library and msgspec only. Nothing here touches the world.
"""
