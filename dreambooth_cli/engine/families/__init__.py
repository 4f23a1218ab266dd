"""Model families at work: the records of `dreambooth_cli/families` with their networks, how these are loaded, and their LoRA layers."""
