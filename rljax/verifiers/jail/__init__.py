"""Where programs run: who locks them in, who watches them, and who judges them. The door is ``verifiers.sandbox``.

A zygote (``pool``, ``zygote``) forks inmates: the program (``inmate``) and, apart from it, its examiner (``examiner``), each
behind ``confinement`` (limits, another user, Landlock, ``seccomp``). ``warden`` judges what they send, as ``plain`` data,
while ``watch`` keeps the clocks.
"""
