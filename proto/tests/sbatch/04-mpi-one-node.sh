#!/bin/bash
#SBATCH --job-name=lattice
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=16
#SBATCH --time=1-12:00:00
#SBATCH --mem=32G

module load openmpi
mpirun -n $SLURM_NTASKS ./lattice params.in
