#!/bin/bash
#SBATCH -a 1-99:7,200%4
#SBATCH -o out/%A/%03a.log
#SBATCH --requeue

./chunk $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT
