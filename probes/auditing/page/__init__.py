"""The audit as one page of HTML: figures, gallery, script and style."""
