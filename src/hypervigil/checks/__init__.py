"""Facts to violations. A check sees facts only, never bytes or the world."""
