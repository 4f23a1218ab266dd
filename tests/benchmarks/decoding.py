"""What decoding one picture holds of a card, as torch's allocator is set (PYTORCH_ALLOC_CONF): with room, and with little.

    python -m tests.benchmarks.decoding --work FOLDER

The VAE is that of FOLDER/sdxl, in float32, as pictures are decoded; 1024 px. By the ledger it and its tensors are 3.56 GB.
"""

import argparse
import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL

SIDE = 128  # of the latents
LITTLE = 3.9e9  # bytes that the process may hold besides its context


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decoding")
    parser.add_argument("--work", type=Path, required=True)
    vae = AutoencoderKL.from_pretrained(parser.parse_args().work / "sdxl" / "vae", torch_dtype=torch.float32).to("cuda")
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}; {os.environ.get('PYTORCH_ALLOC_CONF', 'no PYTORCH_ALLOC_CONF')}\n")
    print("| may hold | allocated at most, GB | held, GB |\n|---|---|---|")
    total = torch.cuda.get_device_properties(0).total_memory
    for room, words in ((total, "all"), (LITTLE, f"{LITTLE / 1e9} GB")):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
        print(f"| {words} | {tried(vae)} |", flush=True)


def tried(vae: AutoencoderKL) -> str:
    """The cells of one row."""
    torch.cuda.reset_peak_memory_stats()
    try:
        with torch.no_grad():
            vae.decode(torch.randn(1, vae.config["latent_channels"], SIDE, SIDE, device="cuda"))
    except torch.cuda.OutOfMemoryError as error:
        return f"out of memory: {error} | "
    return f"{torch.cuda.max_memory_allocated() / 1e9:.2f} | {torch.cuda.max_memory_reserved() / 1e9:.2f}"


if __name__ == "__main__":
    main()
