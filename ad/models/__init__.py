"""The sequence model: tokenizer, embeddings, memory, cached decoding and the action head."""
