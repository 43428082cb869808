"""`guide compare`: a fair tournament of strategies, what it measures, and how it is told."""
