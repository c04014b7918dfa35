"""The error of a verifier that could not judge."""


class VerifierFailed(Exception):
    """A verifier could not judge a response. That says nothing about the response: it is unscored, never wrong and never right."""
