"""The families of rectified flow: what each is by its record and its live class, and all that is done with any base."""
