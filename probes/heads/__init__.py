"""Heads: label spaces read from an encoder's embeddings, each as its formula."""
