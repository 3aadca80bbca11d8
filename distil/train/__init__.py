"""Training: supervised fine-tuning, preference optimisation, reward models, GRPO, distillation from logits."""
