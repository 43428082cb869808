"""`python -m recipes.heads`."""

from recipes import options
from recipes.heads import main

options.start(main)
