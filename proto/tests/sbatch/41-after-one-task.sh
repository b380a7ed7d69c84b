#!/bin/bash
#: sbatch --dependency=afterok:17_0,afterany:17_9:lab-18_3 41-after-one-task.sh
#SBATCH --job-name=preview
# The first and the last tile are enough to look at.
montage tile-0.png tile-9.png preview.png
