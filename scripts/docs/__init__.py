"""The documentation as a site: pages from docstrings, READMEs and tables, built by MkDocs."""
