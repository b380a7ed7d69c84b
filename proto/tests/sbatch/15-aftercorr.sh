#!/bin/bash
#SBATCH --job-name=score
#SBATCH --array=1-10%4
#SBATCH --dependency=aftercorr:17
#SBATCH --time=30:00 --mem=2G
#SBATCH --output=score-%A_%a.out

# Each sample is scored as soon as its own alignment is there.
set -euo pipefail
sample=$(sed -n "${SLURM_ARRAY_TASK_ID}p" samples.txt)
./score --in "aligned/$sample.bam" --out "scores/$sample.tsv"
