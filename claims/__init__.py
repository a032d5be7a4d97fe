"""The paper's claims as experiments: `python -m claims.run` measures what `book/claims.yml` lists."""
