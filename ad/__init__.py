"""Algorithm distillation: sources, histories, sequence models, methods and their evaluation."""
