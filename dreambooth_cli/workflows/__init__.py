"""What happens, in which order. Each workflow yields events; it knows no console."""
