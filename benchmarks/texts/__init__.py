"""The pages (README.md, docs/*.md) and the notebooks' tables of costs, made of templates and of files of results."""
