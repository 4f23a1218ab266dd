"""A model family that lives in the tests alone: a rectified-flow transformer of Z-Image's shape, with a language model that reads the
prompt. It is `record.py` and `live.py`, and what holds that it needs no more: `test_flow_family.py`."""
