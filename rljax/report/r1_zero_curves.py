"""The published curves of DeepSeek-R1-Zero: accuracy and response length over RL steps.

Digitised from Figures 2 and 3 of DeepSeek-R1 (arXiv 2501.12948v1): AIME 2024 accuracy and the mean response length on
the training set, over RL steps. Accuracies are read from the markers and sit on the grid of 30 problems (reading error
at most 0.001); lengths follow the dark smoothed line (reading error about 40 tokens). 30 problems leave a standard
error of several points, so compare trends, not points.
"""

# fmt: off
# Figure 2: share of AIME 2024 problems answered correctly, pass@1 over 16 samples and majority of 16.
STEPS = (
    200, 400, 600, 800, 1000, 1200, 1400, 1600, 2000, 2400, 2800, 3200, 3600, 4000,
    4200, 4400, 4600, 4800, 5000, 5200, 5400, 5600, 5800, 6000, 6200, 6400, 6800, 7000,
    7200, 7400, 7600, 7800, 8000, 8200, 8400,
)
PASS_1 = (
    0.1562, 0.225, 0.2458, 0.2875, 0.3167, 0.3708, 0.4125, 0.3771, 0.3812, 0.4854, 0.5292, 0.5125, 0.5833, 0.6,
    0.6021, 0.5583, 0.5792, 0.5687, 0.5396, 0.6312, 0.575, 0.5896, 0.6167, 0.6438, 0.625, 0.6875, 0.6625, 0.6854,
    0.6521, 0.6771, 0.6729, 0.6687, 0.6875, 0.6771, 0.7104,
)
CONS_16 = (
    0.2533, 0.34, 0.3133, 0.3467, 0.4467, 0.5667, 0.5533, 0.4867, 0.5467, 0.6133, 0.7333, 0.6867, 0.7667, 0.7667,
    0.7333, 0.7667, 0.6933, 0.7333, 0.7067, 0.78, 0.7267, 0.8, 0.8, 0.78, 0.8, 0.8667, 0.7667, 0.8333,
    0.8, 0.8333, 0.8133, 0.8067, 0.82, 0.8333, 0.8667,
)
O1_PASS_1, O1_CONS_64 = 0.744, 0.833  # the dashed lines of Figure 2: OpenAI o1-0912

# Figure 3: mean response length in tokens.
LENGTH_STEPS = (
    0, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2000, 2200, 2400, 2600,
    2800, 3000, 3200, 3400, 3600, 3800, 4000, 4200, 4400, 4600, 4800, 5000, 5200, 5400,
    5600, 5800, 6000, 6200, 6400, 6600, 6800, 7000, 7200, 7400, 7600, 7800, 8000, 8200,
    8400,
)
LENGTH = (
    555, 596, 955, 1094, 1316, 1358, 1352, 2050, 1691, 2563, 2016, 1952, 2390, 2827,
    3169, 3241, 3131, 3369, 3768, 3909, 3843, 4797, 4195, 4534, 4890, 4852, 6054, 5376,
    5058, 5689, 6026, 5651, 5584, 6086, 6568, 8222, 6584, 8034, 7881, 7735, 9259, 9380,
    9555,
)
# fmt: on
