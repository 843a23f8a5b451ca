"""Security audit of fine-tuned language models."""
