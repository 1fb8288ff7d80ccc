"""What each command does: settings in, one call, and what came of it to look at."""

from deqsmooth.commands import attack, certify, convert, plan, predict, recertify, reproduce, train

__all__ = ["attack", "certify", "convert", "plan", "predict", "recertify", "reproduce", "train"]
