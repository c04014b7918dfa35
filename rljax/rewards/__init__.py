"""Rewards: what a response earns, on the device or in worker processes."""

from rljax.rewards.reward import *  # noqa: F403
