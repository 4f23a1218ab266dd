"""Pictures on disk: found, opened, looked over, cropped. Pillow only."""
