#!/bin/bash
#SBATCH --ntasks=9 --nodes=2 --ntasks-per-node=4
srun ./work
