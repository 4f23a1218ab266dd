"""The rectified-flow families: their records and live classes, and everything that is done with any base."""
