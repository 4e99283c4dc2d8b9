"""Tasks that ship with fedproof, and what makes a task of one's own short."""
