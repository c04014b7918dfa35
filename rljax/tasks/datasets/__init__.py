"""Questions with checkable answers, from the field's data sets or your own files, as plain records.

    load("math", path="FOLDER") -> {"train": [record, ...], "test": [record, ...]}

``sources`` says where each set comes from and how its rows read; ``builder`` keeps them as TensorFlow Datasets does, without
TensorFlow; ``decontamination`` drops what an evaluation asks too; ``gym`` makes problems by reasoning-gym.
"""

from rljax.tasks.datasets.library import SOURCES, load_dataset
from rljax.tasks.datasets.sources import Row, Source
