"""Publishing: cards, what is uploaded where, and what must never be."""
