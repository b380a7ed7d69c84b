#!/bin/bash -l
# A course's example, with comments between.

#SBATCH --ntasks=1            # one process
#SBATCH --time=00:05:00       # hh:mm:ss
##SBATCH --mem=64G
# SBATCH --cpus-per-task=64

echo done
