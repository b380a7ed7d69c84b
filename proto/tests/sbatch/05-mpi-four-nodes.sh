#!/bin/bash
#SBATCH -J ocean
#SBATCH -N 4
#SBATCH -n 10
#SBATCH -t 2-0
#SBATCH -p compute

srun ./ocean --grid global
