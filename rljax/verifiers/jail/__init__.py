"""The processes in which programs run, and the side that controls them. Use it through ``verifiers.sandbox``.

On the trusted side:
    cases              test cases, limits and outcomes
    pool               the zygotes of this process, one per core
    supervisor         runs programs and tests in the jail, and decides the verdicts
    monitor            limits of running processes: CPU time, memory, output, files

In the other processes:
    zygote             forks every jailed process from a clean Python that has the standard library loaded
    stdlib_import      loads the standard library for them
    confinement        gives up rights: resource limits, another user, Landlock, capabilities
    private_files      the folder of the programs as a file system of its own
    thread_limit       the limit of threads, for which the kernel asks the zygote
    libc               calls of the C library and the kernel
    seccomp            the filter of allowed system calls
    program_process    runs the program
    assertion_process  runs the tests, apart from the program, whose functions it calls
    messages           what the two send to each other
    plain_data         encodes and decodes plain data, the content of messages
"""
