"""Model families alive: a record of `dreambooth_cli/families` with its networks; how they are loaded, and their LoRA layers."""
