"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """A mistake in what was asked for, told in one sentence: its cause and its remedy. The command line prints it and exits with code 2."""
