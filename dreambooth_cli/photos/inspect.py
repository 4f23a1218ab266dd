"""What a photo is worth for training at a resolution, in words."""

from .crop import Size

FEWEST, MOST = 3, 20


def judge_size(size: Size, resolution: int) -> tuple[str, str]:
    """Whether a photo of this upright size is `kept`, `warned` about (enlarged) or `refused`, and why."""
    side = min(size)
    if side * 2 < resolution:
        return "refused", f"too small: its shorter side has {side} pixels, under half of the {resolution} to train with"
    if side < resolution:
        return "warned", f"small: its shorter side has {side} pixels, so it is enlarged to {resolution}"
    return "kept", ""


def judge_cover(size: Size, into: Size) -> tuple[str, str]:
    """The same of a photo that is to cover a picture of the size `into`, in its own shape."""
    scale = max(into[0] / size[0], into[1] / size[1])
    told = f"it has {size[0]} x {size[1]} pixels"
    if scale > 2:
        return "refused", f"too small: {told}, under half of the {into[0]} x {into[1]} to train with"
    if scale > 1:
        return "warned", f"small: {told}, so it is enlarged to {into[0]} x {into[1]}"
    return "kept", ""


def judge_count(count: int) -> str | None:
    """A remark where there are very few or very many photos."""
    if count < FEWEST:
        photos = "1 photo is" if count == 1 else f"{count} photos are"
        return f"{photos} little to learn from: 3 to 5, from several sides, are better"
    if count > MOST:
        return f"{count} photos are many: 3 to 5 good ones usually do better, and each photo is seen less often"
    return None
