r"""Verifiers: is a response correct? Decided from text alone, in plain Python without JAX, safe in worker processes.

Mathematical answers:
    answers             ``verify(response, answer)``, ``extract_answer(response)``, ``grade_many(pairs)``
    answer_extraction   finds the final answer in a response: ``#### 72``, ``\boxed{72}``, ``<answer>72</answer>``
    number_parsing      normalizes notation, parses numbers as exact fractions, compares words, times and bases
    compound_answers    splits lists, sets, tuples, intervals, matrices and assignments into their elements
    numeric_evaluation  compares formulas by their values at random points
    formula_evaluator   evaluates a formula, where each letter has a value
    tractability        which formulas are hopeless for sympy
    symbolic            compares formulas with math-verify (sympy), in processes that can be killed

Programs:
    sandbox             ``run(program, cases)`` and ``run_many(jobs)``: does a program pass its test cases?
    code_blocks         finds the program in a response
    case_validation     can the tests of a data set work? Decided in a child process
    jail/               the processes in which programs run: kernel restrictions, messages, limits

Other checks:
    arithmetic          Countdown: does an expression reach the target from the given numbers?
    tag_format          format reward: are ``<think>`` and ``<answer>`` tags used as the prompt asks?
    failures            the error of a verifier that could not judge
    text_rewards        language consistency and repetition of a text
"""
