"""Claims of the articles, each with the cells that it is held against."""
