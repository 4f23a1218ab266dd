"""Sizes for photos that keep their shape."""

import pytest

from dreambooth_cli.photos.buckets import APART, bucket_for, bucket_sizes, cover_box, largest_of


@pytest.mark.parametrize("resolution", [64, 128, 512, 768, 1024])
def test_buckets_have_the_squares_pixels_in_whole_steps(resolution):
    buckets, step = bucket_sizes(resolution), min(64, resolution // 8)
    assert buckets[0] == (resolution, resolution)
    assert 9 <= len(buckets) <= 19
    assert len(set(buckets)) == len(buckets)
    for width, height in buckets:
        assert (width % step, height % step) == (0, 0)
        assert abs(width * height - resolution**2) <= APART * resolution**2
        assert (height, width) in buckets
    assert largest_of(buckets) >= resolution**2


def test_those_of_stable_diffusion():
    assert bucket_sizes(512)[1::2] == ((576, 448), (640, 384), (640, 448), (704, 384), (768, 320))


@pytest.mark.parametrize(
    ("size", "bucket", "kept"),
    [
        ((4000, 3000), (576, 448), 0.96),
        ((3000, 4000), (448, 576), 0.96),
        ((6000, 4000), (640, 448), 0.95),
        ((1920, 1080), (704, 384), 0.96),
        ((1000, 1000), (512, 512), 1.0),
        ((5000, 1000), (768, 320), 0.48),
    ],
)
def test_the_least_is_cut_off(size, bucket, kept):
    buckets = bucket_sizes(512)
    assert bucket_for(size, buckets) == bucket
    left, top, right, bottom = cover_box(size, bucket)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert abs((size[0] - right) - left) <= 1
    assert abs((size[1] - bottom) - top) <= 1
    share = (right - left) * (bottom - top) / (size[0] * size[1])
    assert share == pytest.approx(kept, abs=0.015)
    assert (right - left) / (bottom - top) == pytest.approx(bucket[0] / bucket[1], rel=0.002)
    for other in buckets:
        box = cover_box(size, other)
        assert (box[2] - box[0]) * (box[3] - box[1]) <= (right - left) * (bottom - top) * 1.001
