#!/bin/bash
#SBATCH -N 2
#SBATCH --array=1-4
mpirun ./work
