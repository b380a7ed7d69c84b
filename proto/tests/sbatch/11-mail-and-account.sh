#!/bin/bash
#SBATCH --account=phys-042
#SBATCH --qos=normal
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user=ada@example.org
#SBATCH -t 15
./analyse
