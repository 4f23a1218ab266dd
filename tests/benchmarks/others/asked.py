"""What every program is given, and what it is asked for."""

# of a base's folder: its single file, a LoRA by peft's names and by kohya's, and the LoRA baked in
SINGLE, LORA, KOHYA, MERGED = "model.safetensors", "lora.safetensors", "kohya.safetensors", "merged.safetensors"
BESIDE = "diffusers"  # a folder: the LoRA as diffusers has it
# the picture
PROMPT, NEGATIVE, SEED, SIDE, STEPS, GUIDANCE = "a photo of a sks dog on the beach", "blurred", 1, 128, 4, 3.0
