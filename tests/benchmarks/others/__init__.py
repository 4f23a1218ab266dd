"""How other programs' own code reads our exports: stable-diffusion.cpp, ComfyUI, kohya's scripts."""
