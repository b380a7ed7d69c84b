#!/bin/bash
#SBATCH --job-name=sweep
#SBATCH --array=0-15
#SBATCH --time=10:00
#SBATCH --mem=1G

python fit.py --seed "$SLURM_ARRAY_TASK_ID"
