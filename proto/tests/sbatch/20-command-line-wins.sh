#!/bin/bash
#: SBATCH_TIMELIMIT=45
#: SBATCH_PARTITION=short
#: SBATCH_MEM_PER_CPU=3G
#: sbatch -J from-line --partition fast -c 2 20-command-line-wins.sh
#SBATCH -J from-script
#SBATCH -t 10
#SBATCH -p slow
#SBATCH --mem=1G
./work
