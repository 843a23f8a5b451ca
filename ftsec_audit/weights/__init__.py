"""What a fine-tune changed: one `Delta` per module, streamed, factored where the change is low-rank."""
