"""How the embedded weights are trained, from a folder of paintings with a metadata table."""
