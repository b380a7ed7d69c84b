#!/bin/bash
#SBATCH -J omp-stream
#SBATCH -n 1
#SBATCH -c 8
#SBATCH -t 00:30:00
#SBATCH --mem-per-cpu=2G
#SBATCH -o logs/%x-%j.out
#SBATCH -e logs/%x-%j.err

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
./stream
