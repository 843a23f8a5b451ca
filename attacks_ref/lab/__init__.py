"""Small language models trained from scratch, whose every habit is known."""
