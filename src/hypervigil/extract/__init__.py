"""Evidence to facts. The only place where an `EvidenceError` becomes `Unknown`."""
