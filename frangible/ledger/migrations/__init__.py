"""Alembic scripts of the ledger, shipped in the wheel; `Database.open` runs them."""
