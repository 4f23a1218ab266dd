"""What other programs' own code makes of our exports: stable-diffusion.cpp, ComfyUI, kohya's scripts."""
