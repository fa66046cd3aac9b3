"""Where alembic starts; what it does is the same for every database of ours."""

from frangible.database import run_migrations

run_migrations()
