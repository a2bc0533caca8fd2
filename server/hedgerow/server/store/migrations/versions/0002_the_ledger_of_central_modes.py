"""The ledger of central modes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make this step."""
    op.create_table(
        "privacy_accounts",
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("mode", sa.String(length=32), nullable=False),
        sa.Column("devices", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("earlier", sa.Text(), nullable=False),
        sa.Column("earlier_unprotected", sa.Boolean(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "privacy_charges",
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("epsilon", sa.Float(), nullable=True),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("reserved_at", sa.DateTime(), nullable=False),
        sa.Column("charged_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "round"),
    )


def downgrade() -> None:
    """Undo this step."""
    op.drop_table("privacy_charges")
    op.drop_table("privacy_accounts")
