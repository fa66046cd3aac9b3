"""What alembic runs for each command on the journal."""

from frangible.database import run_migrations

run_migrations()
