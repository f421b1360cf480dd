"""The sequence model: tokenizer, embeddings, transformer, cached decoding and the action head."""
