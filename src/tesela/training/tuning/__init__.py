"""Fine-tuning: what is trained of a model, adapters, and features of a frozen backbone."""
