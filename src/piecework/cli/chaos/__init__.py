"""`piecework chaos`: breaks what can break while jobs run, and judges what became of them."""
