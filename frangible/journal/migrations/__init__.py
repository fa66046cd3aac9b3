"""Alembic scripts of the journal, shipped in the wheel; `Database.open` runs them."""
