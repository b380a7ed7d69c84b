#!/bin/bash
#SBATCH -J nf-align_(7)
#SBATCH -o /scratch/work/3e/91ab/.command.log
#SBATCH --no-requeue
#SBATCH --signal B:USR2@30
#SBATCH -c 2
#SBATCH -t 01:00:00
#SBATCH --mem 4096M
# NEXTFLOW TASK: align (7)
bash .command.run
